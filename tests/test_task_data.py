"""The loader of all tasks: from a mirror or the Hub, with every fault of the data named in one line."""

from __future__ import annotations

import gzip
import json
import shutil

import datasets
import pytest
import toy_benchmarks
import toy_tasks
from task_tools import built, hub_folder, ours

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.tasks_support.datasets import load_task_data

HUB = {
    "cambridgeltl/xcopa": ("xcopa", "amplify_xcopa_ind_Latn", "id"),
    "Muennighoff/xwinograd": ("xwinograd", "amplify_xwinograd_rus_Cyrl", "ru"),
    "CohereLabs/include-lite-44": ("include", "amplify_include_mkd_Cyrl", "North Macedonian"),
    "CohereLabs/include-base-44": ("include", "amplify_include_base_mkd_Cyrl", "North Macedonian"),
    "openlanguagedata/flores_plus": ("flores_ppl", "amplify_flores_ppl_zho_Hans", "cmn_Hans"),
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_benchmarks.write_mirror(toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror")))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory of its own, where the Hub's names are local folders; no mirror in force."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR", raising=False)
    return tmp_path


def on_the_hub(hub_path, config, mirror):
    """The mirror's rows of a dataset, in the columns of the Hub."""
    if hub_path.endswith("flores_plus"):
        rows = toy_benchmarks.flores_rows("zho_Hans")
        more = {"iso_639_3": "cmn", "iso_15924": "Hans", "glottocode": "beij1234"}
        return {
            "devtest": datasets.Dataset.from_list([{"id": one["id"], "text": one["sentence"], **more} for one in rows])
        }
    folder = mirror / hub_path / config
    return {path.stem: datasets.Dataset.from_json(str(path)) for path in sorted(folder.glob("*.jsonl"))}


@pytest.mark.parametrize("hub_path", HUB)
def test_the_hub_is_read_through_load_dataset(hub_path, mirror, elsewhere):
    """A local folder of the form that the Hub has, through the real ``load_dataset``."""
    folder, name, config = HUB[hub_path]
    rows = on_the_hub(hub_path, config, mirror)
    hub_folder(elsewhere, hub_path, {"another": rows, config: rows})
    task = ours(folder, name)
    assert built(task) == built(ours(folder, name, mirror))
    assert set(task.eval_docs["amplify_language"]) == {name[-8:]}


@pytest.mark.parametrize("form", ["script", "parquet"])
def test_xwinograd_is_read_whether_the_hub_has_it_as_a_script_or_as_parquet(form, mirror, elsewhere):
    """As it was first published, files per language beside a script; and as the Hub converts such datasets."""
    folder = elsewhere / "Muennighoff/xwinograd"
    if form == "script":
        (folder / "test").mkdir(parents=True)
        (folder / "xwinograd.py").write_text("raise RuntimeError\n")
        for config in ("ru", "en"):
            shutil.copy(mirror / "Muennighoff/xwinograd" / config / "test.jsonl", folder / "test" / f"{config}.jsonl")
    else:
        for config in ("ru", "en"):
            (folder / config).mkdir(parents=True)
            rows = datasets.Dataset.from_json(str(mirror / "Muennighoff/xwinograd" / config / "test.jsonl"))
            rows.to_parquet(folder / config / "xwinograd-test.parquet")
    name = "amplify_xwinograd_rus_Cyrl"
    assert built(ours("xwinograd", name)) == built(ours("xwinograd", name, mirror))


def test_a_config_or_split_that_the_hub_lacks_is_named_with_near_ones(mirror, elsewhere):
    rows = on_the_hub("cambridgeltl/xcopa", "id", mirror)
    hub_folder(elsewhere, "cambridgeltl/xcopa", {"id": rows, "zh": {"test": rows["test"]}})
    hub = {"hub_path": "cambridgeltl/xcopa", "splits": ["validation", "test"], "amplify_language": "ind_Latn"}
    with pytest.raises(DataError, match=r"no such config; it has 2: id, zh$"):
        load_task_data(hub_name="th", **hub)
    with pytest.raises(DataError, match=r"cambridgeltl/xcopa \(zh\) has no split 'validation'; it has test"):
        load_task_data(hub_name="zh", **hub)


def test_without_a_login_flores_says_how_to_log_in(elsewhere):
    with pytest.raises(
        DataError, match=r"the dataset is gated: accept its terms at https://.*`hf auth login`"
    ) as caught:
        ours("flores_ppl", "amplify_flores_ppl_ind_Latn")
    assert "\n" not in str(caught.value)


def load(data_dir, **changes):
    source = {"hub_path": "org/name", "hub_name": "id", "splits": ["test"], "amplify_language": "ind_Latn"}
    return load_task_data(**source | changes, data_dir=str(data_dir))


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "org" / "name" / "id"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_mirror_may_hold_any_of_three_formats(config, tmp_path, suffix):
    rows = [{"a": "ü", "b": 1}, {"a": "日", "b": 2}]
    if suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(config / "test.parquet")
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        (config / f"test{suffix}").write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    assert list(load(tmp_path)["test"]) == [row | {"amplify_language": "ind_Latn"} for row in rows]


def test_a_column_that_a_row_lacks_is_none_there_and_blank_lines_are_none(config, tmp_path):
    (config / "test.jsonl").write_text('{"a": 1}\n\n{"a": 2, "b": "x"}\n\n')
    assert load(tmp_path)["test"]["b"] == [None, "x"]


def test_the_environment_names_a_mirror_and_an_argument_wins_over_it(config, tmp_path, monkeypatch):
    (config / "test.jsonl").write_text('{"a": 1}\n')
    monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", str(tmp_path))
    assert (
        len(load_task_data(hub_path="org/name", hub_name="id", splits=["test"], amplify_language="x_Latn")["test"]) == 1
    )
    with pytest.raises(DataError, match="data_dir=/nowhere is not a folder"):
        load("/nowhere")


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({}, {"hub_name": "idd"}, r"no org/name \(idd\) in data_dir=.*looked for .*; .* has id"),
        ({}, {}, "expected one of test.jsonl, test.jsonl.gz, test.parquet, found none"),
        (
            {"test.jsonl": b'{"a":1}\n', "test.parquet": b""},
            {},
            r"more than once: found .*test.jsonl and .*test.parquet; remove all but one",
        ),
        ({"test.jsonl": b'{"a":1}\n{"a":\n'}, {}, "test.jsonl, line 2: invalid JSON"),
        ({"test.jsonl": b'{"a":1}\n\xff\xfe\n'}, {}, "test.jsonl, after line .: cannot be read"),
        ({"test.jsonl": b""}, {}, "test.jsonl has no rows"),
        ({"test.jsonl": b'{"a":1}\n[1]\n'}, {}, r"line 2: expected an object with the row's columns, found \[1\]"),
        ({"test.jsonl": b'{"a":1}\n{"a":"x"}\n'}, {}, "rows do not agree on a column's type"),
        ({"test.jsonl.gz": b"not gzip"}, {}, "cannot be read"),
        ({"test.parquet": b"not parquet"}, {}, "not a readable parquet file"),
    ],
)
def test_what_a_mirror_lacks_or_garbles_is_named(config, tmp_path, files, changes, message):
    for name, content in files.items():
        (config / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_way_to_a_mirror_is_told(monkeypatch):
    monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR", raising=False)
    with pytest.raises(
        DataError, match=r"cannot load org/name \(id\) from the Hub: .*; without a network give a local"
    ):
        load_task_data(hub_path="org/name", hub_name="id", splits=["test"], amplify_language="ind_Latn")


KNOWN = {
    "xcopa": ("cambridgeltl/xcopa", "id", "test", lambda: json.loads(XCOPA_ROW)),
    "xwinograd": ("Muennighoff/xwinograd", "fr", "test", lambda: toy_benchmarks.xwinograd_rows("fr")[0]),
    "lite": ("CohereLabs/include-lite-44", "Italian", "test", lambda: toy_benchmarks.include_rows("lite")[0]),
    "base": ("CohereLabs/include-base-44", "Italian", "test", lambda: toy_benchmarks.include_rows("base")[0]),
    "flores": ("facebook/flores", "ind_Latn", "devtest", lambda: toy_benchmarks.flores_rows("ind_Latn")[0]),
}
XCOPA_ROW = '{"premise": "Hujan.", "choice1": "Basah.", "choice2": "Kering.", "question": "cause", "label": 0}'


def load_known(dataset, folder, *changes):
    hub_path, config, split, row = KNOWN[dataset]
    rows = [row() | change for change in ({}, *changes)]
    toy_benchmarks.write_split(folder / hub_path / config, rows, split)
    return load_task_data(
        hub_path=hub_path, hub_name=config, splits=[split], amplify_language="x", data_dir=str(folder)
    )[split]


@pytest.mark.parametrize(
    ("dataset", "change", "message"),
    [
        ("xcopa", {"choice2": ""}, "row 2: column 'choice2' holds '', expected a text"),
        ("xcopa", {"premise": None}, "row 2: column 'premise' holds None"),
        ("xcopa", {"question": "why"}, "row 2: column 'question' holds 'why', expected 'cause' or 'effect'"),
        ("xcopa", {"label": 2}, "row 2: column 'label' holds 2, expected 0 or 1"),
        ("xwinograd", {"sentence": "Without."}, "row 2: column 'sentence' has no '_' to put an option in: 'Without.'"),
        ("xwinograd", {"option1": " "}, "row 2: column 'option1' holds ' '"),
        ("xwinograd", {"answer": "3"}, "row 2: column 'answer' holds '3', expected '1' or '2'"),
        ("lite", {"choices": []}, r"row 2: column 'choices' holds \[\], expected 4 texts"),
        ("lite", {"choices": ["a", "b", "c"]}, "expected 4 texts"),
        ("lite", {"answer": 4}, "row 2: column 'answer' holds 4, expected 0 or 1 or 2 or 3"),
        ("lite", {"domain": None}, "row 2: column 'domain' holds None"),
        ("base", {"option_c": None}, r"row 2: columns option_a to option_d holds \['tiga', 'empat', None, 'enam'\]"),
        ("flores", {"sentence": "  "}, "row 2: column 'sentence' holds '  ', expected a text"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named_with_its_number(tmp_path, dataset, change, message):
    with pytest.raises(DataError, match=message) as caught:
        load_known(dataset, tmp_path, change)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_empty_option_of_an_exam_is_a_warning_because_letters_are_scored(tmp_path, caplog):
    assert len(load_known("base", tmp_path, {"option_c": ""}, {"option_d": " "})) == 3
    assert "row 2: option C is empty, and 1 more such rows; scored as it is" in caplog.text


@pytest.mark.parametrize("dataset", KNOWN)
def test_a_column_that_is_missing_is_named_with_what_is_there(tmp_path, dataset):
    hub_path, config, split, row = KNOWN[dataset]
    column = {"flores": "sentence", "xwinograd": "option2", "lite": "choices", "base": "option_d"}.get(dataset, "label")
    rows = [{name: value for name, value in row().items() if name != column} | {"more": 1}]
    toy_benchmarks.write_split(tmp_path / hub_path / config, rows, split)
    with pytest.raises(DataError, match=rf"{split}.jsonl: no column '{column}'.*; it has .*more, expected .*{column}"):
        load_task_data(hub_path=hub_path, hub_name=config, splits=[split], amplify_language="x", data_dir=str(tmp_path))


def test_a_number_of_rows_that_is_not_the_known_one_is_a_warning(tmp_path, caplog):
    load_known("flores", tmp_path)
    assert "devtest.jsonl: 1 rows, while devtest of this dataset is known to have 1012" in caplog.text
    caplog.clear()
    load_known("lite", tmp_path)
    assert "known to have" not in caplog.text, "the rows of Include are not known"


def test_the_real_rows_are_as_many_as_known_but_for_chinese_xwinograd(real_data, caplog):
    for hub_path, config, splits in [
        ("cambridgeltl/xcopa", "sw", ["validation", "test"]), ("Muennighoff/xwinograd", "pt", ["test"]),
        ("openlanguagedata/flores_plus", "cmn_Hans", ["dev", "devtest"]), ("Muennighoff/xwinograd", "zh", ["test"]),
    ]:  # fmt: skip
        load_task_data(hub_path=hub_path, hub_name=config, splits=splits, amplify_language="x", data_dir=str(real_data))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "16 rows, while test of this dataset is known to have 504"
    ]


def test_a_truncated_file_is_named(config, tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 2000, mtime=0)
    (config / "test.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"test.jsonl.gz, after line \d+: cannot be read"):
        load(tmp_path)


def test_flores_that_a_mirror_has_in_both_layouts_is_a_conflict(mirror, tmp_path):
    shutil.copytree(mirror / "facebook", tmp_path / "facebook")
    toy_benchmarks.write_split(tmp_path / "openlanguagedata/flores_plus/cmn_Hans", [{"text": "x"}], "devtest")
    with pytest.raises(
        DataError, match=r"more than once: found .*cmn_Hans/devtest.jsonl and .*zho_Hans/devtest.jsonl;"
    ):
        ours("flores_ppl", "amplify_flores_ppl_zho_Hans", tmp_path)
    shutil.rmtree(tmp_path / "facebook/flores/zho_Hans")
    assert ours("flores_ppl", "amplify_flores_ppl_zho_Hans", tmp_path).eval_docs["sentence"][:] == ["x"]


def test_two_mirrors_given_at_once_are_a_warning_that_says_which_is_read(config, tmp_path, monkeypatch, caplog):
    (config / "test.jsonl").write_text('{"a": 1}\n')
    monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", "/another")
    load(tmp_path)
    load(tmp_path)
    assert caplog.text.count(f"two mirrors are given: data_dir={tmp_path} is read, LM_EVAL_AMPLIFY_DATA_DIR=") == 1


def test_a_tag_runs_what_a_mirror_has_of_its_language(mirror, caplog):
    found = ours(".", "amplify_ind_Latn", mirror)
    assert sorted(found) == [
        f"amplify_{name}_ind_Latn"
        for name in ("flores_ppl", "include_base", "include_base_paper", "include", "include_paper", "xcopa")
    ]
    assert "lacks the data of amplify_lss_mlama_ind_Latn" in caplog.text
    assert "left out of amplify_ind_Latn" in caplog.text

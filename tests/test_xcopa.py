"""amplify_xcopa: the harness's own XCOPA, request for request, from the Hub or from a mirror."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import lm_eval
import lm_eval.tasks
import pytest
import toy_tasks

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.datasets import load_task_data

STOCK = Path(lm_eval.tasks.__file__).parent / "xcopa"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror"))


def manager(folder, **metadata):
    return lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False, metadata=metadata)


def built(task, **options):
    task.set_config("num_fewshot", options.pop("num_fewshot", 0))
    task.set_fewshot_seed(1234)
    task.build_all_requests(rank=0, world_size=1, **options)
    return [(one.request_type, one.args, one.idx, one.doc_id, one.repeats) for one in task.instances]


def ours_and_stock(config, mirror, monkeypatch):
    code = toy_tasks.XCOPA_CONFIGS[config]
    ours = manager(tasks_folder() / "xcopa", data_dir=str(mirror)).load(f"amplify_xcopa_{code}")
    rows = {
        split: datasets.load_dataset("json", data_files=str(mirror / "cambridgeltl/xcopa" / config / f"{split}.jsonl"))
        for split in ("validation", "test")
    }
    loaded = datasets.DatasetDict({split: found["train"] for split, found in rows.items()})

    def load_dataset(path, name, **_options):
        assert (path, name) == ("cambridgeltl/xcopa", config)
        return loaded

    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load_dataset)
    stock = manager(STOCK).load(f"xcopa_{config}")
    return ours["tasks"][f"amplify_xcopa_{code}"], stock["tasks"][f"xcopa_{config}"]


def assert_parity(ours, stock, **options):
    assert built(ours, **options) == built(stock, **options)
    for number, (own, their) in enumerate(zip(ours.eval_docs, stock.eval_docs, strict=True)):
        assert ours.doc_to_target(own) == stock.doc_to_target(their)
        answers = [(-1.0 - (number % 2), False), (-1.5, True)]
        theirs = stock.process_results(their, answers)
        assert ours.process_results(own, answers).items() == {"acc": theirs["acc"]}.items()
    assert ours.aggregation() == {"acc": stock.aggregation()["acc"]}
    assert ours.higher_is_better()["acc"] is stock.higher_is_better()["acc"] is True
    assert ours.VERSION == stock.VERSION


@pytest.mark.parametrize("config", toy_tasks.XCOPA_CONFIGS)
@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_every_request_and_score_is_that_of_the_harness_own_task(config, num_fewshot, mirror, monkeypatch):
    ours, stock = ours_and_stock(config, mirror, monkeypatch)
    assert_parity(ours, stock, num_fewshot=num_fewshot, limit=5)


@pytest.mark.parametrize("config", ["et", "ht", "id", "sw", "ta", "zh"])
def test_every_request_on_the_real_rows_is_that_of_the_harness_own_task(config, real_data, monkeypatch):
    ours, stock = ours_and_stock(config, real_data, monkeypatch)
    assert len(ours.eval_docs) == 500
    assert_parity(ours, stock, num_fewshot=1)


def test_scores_on_real_rows_are_those_of_the_harness_own_task(real_data, saved, monkeypatch):
    """The whole evaluation, by stock hf: numbers, stderr and group."""
    ours, stock = ours_and_stock("id", real_data, monkeypatch)
    results = lm_eval.simple_evaluate(
        "hf",
        model_args=f"pretrained={saved('gpt2')}",
        tasks=[ours, stock],
        limit=40,
        device="cpu",
        batch_size=8,
    )["results"]
    mine, theirs = results["amplify_xcopa_ind_Latn"], results["xcopa_id"]
    assert {name: mine[name] for name in ("acc,none", "acc_stderr,none")} == {
        name: theirs[name] for name in ("acc,none", "acc_stderr,none")
    }


def test_the_group_is_weighted_as_the_harness_own():
    ours = manager(tasks_folder() / "xcopa").task_index["amplify_xcopa"].cfg
    stock = manager(STOCK).task_index["xcopa"].cfg
    assert ours["aggregate_metric_list"] == stock["aggregate_metric_list"]
    assert len(ours["task"]) == len(stock["task"]) == 11


def test_every_document_says_its_language(mirror):
    tasks = manager(tasks_folder() / "xcopa", data_dir=str(mirror)).load("amplify_xcopa")["tasks"]
    for name, task in tasks.items():
        assert {doc["amplify_language"] for doc in task.eval_docs} == {name.removeprefix("amplify_xcopa_")}


def test_the_hub_is_read_through_load_dataset(mirror, tmp_path, monkeypatch):
    """A local folder of the form that the Hub has, through the real ``load_dataset``."""
    folder = tmp_path / "cambridgeltl" / "xcopa"
    (folder / "id").mkdir(parents=True)
    for split in ("validation", "test"):
        rows = (mirror / "cambridgeltl/xcopa/id" / f"{split}.jsonl").read_text()
        datasets.Dataset.from_list([json.loads(row) for row in rows.splitlines()]).to_parquet(
            folder / "id" / f"{split}-00000-of-00001.parquet"
        )
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: id\n  data_files:\n  - split: validation\n    path: id/validation-*\n"
        "  - split: test\n    path: id/test-*\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR", raising=False)
    task = manager(tasks_folder() / "xcopa").load("amplify_xcopa_ind_Latn")["tasks"]["amplify_xcopa_ind_Latn"]
    by_mirror = manager(tasks_folder() / "xcopa", data_dir=str(mirror)).load("amplify_xcopa_ind_Latn")["tasks"]
    assert built(task, limit=5) == built(by_mirror["amplify_xcopa_ind_Latn"], limit=5)


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
        import gzip

        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        (config / f"test{suffix}").write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    assert list(load(tmp_path)["test"]) == [row | {"amplify_language": "ind_Latn"} for row in rows]


def test_a_column_that_a_row_lacks_is_none_there_and_blank_lines_are_none(config, tmp_path):
    (config / "test.jsonl").write_text('{"a": 1}\n\n{"a": 2, "b": "x"}\n\n')
    assert load(tmp_path)["test"]["b"] == [None, "x"]


def test_requests_kept_of_another_mirror_are_not_taken_for_these(mirror, tmp_path, saved, monkeypatch):
    import shutil

    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "kept"))
    other = tmp_path / "other"
    shutil.copytree(mirror, other)
    path = other / "cambridgeltl/xcopa/id/test.jsonl"
    path.write_text(path.read_text().replace("Hujan", "Salju"))
    prompts = []
    for folder in (mirror, other):
        results = lm_eval.simple_evaluate(
            "hf",
            model_args=f"pretrained={saved('gpt2')}",
            tasks=["amplify_xcopa_ind_Latn"],
            task_manager=manager(tasks_folder() / "xcopa", data_dir=str(folder)),
            cache_requests=True,
            device="cpu",
            limit=1,
        )
        prompts.append(results["samples"]["amplify_xcopa_ind_Latn"][0]["arguments"][0][0])
    assert prompts[0].startswith("Hujan")
    assert prompts[1].startswith("Salju")


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
        ({"test.jsonl": b'{"a":1}\n', "test.parquet": b""}, {}, "found test.jsonl and test.parquet"),
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


def test_a_group_runs_on_the_languages_that_a_mirror_has(mirror, tmp_path, caplog):
    import shutil

    shutil.copytree(mirror / "cambridgeltl/xcopa/zh", tmp_path / "cambridgeltl/xcopa/zh")
    found = manager(tasks_folder() / "xcopa", data_dir=str(tmp_path)).load("amplify_xcopa")
    assert list(found["tasks"]) == ["amplify_xcopa_zho_Hans"]
    assert "lacks the data of amplify_xcopa_est_Latn, amplify_xcopa_hat_Latn" in caplog.text
    with pytest.raises(DataError, match=r"no cambridgeltl/xcopa \(et\)"):
        manager(tasks_folder() / "xcopa", data_dir=str(tmp_path)).load("amplify_xcopa_est_Latn")
    with pytest.raises(DataError, match=r"no cambridgeltl/xcopa \(et\)"):
        manager(tasks_folder() / "xcopa", data_dir=str(tmp_path / "cambridgeltl")).load("amplify_xcopa")

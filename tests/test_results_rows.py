"""Results as rows: of real files of two harness versions, and of damaged ones."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import REPOSITORY
from result_files import REAL, share, write_results

from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.results.entrants import entrant_of
from lm_eval_amplify.results.files import find_results, read_results
from lm_eval_amplify.results.rows import SCHEMA_VERSION, Row, rows_of


def rows(version: str, model: str = "gpt2-seed0") -> dict[tuple[str, str], Row]:
    found = {}
    for file in find_results([REAL / version / model]):
        found |= {(row.task, row.name): row for row in rows_of(read_results(file))}
    return found


def test_every_version_of_the_harness_gives_the_same_rows():
    old, new = rows("0.4.8"), rows("0.4.13")
    assert old.keys() == new.keys()
    assert len(old) == 14
    for key, row in old.items():
        other = new[key]
        for name in ("model", "condition", "signature", "group", "is_group", "protocol", "higher_is_better"):
            assert getattr(row, name) == getattr(other, name), (key, name)
        assert row.value == pytest.approx(other.value, rel=1e-9), key
    assert {row.harness for row in old.values()} == {""}
    assert {row.harness for row in new.values()} == {"0.4.13"}


@pytest.mark.parametrize("version", ["0.4.8", "0.4.13"])
def test_a_lower_perplexity_is_better_and_a_higher_accuracy(version):
    directions = {name: row.higher_is_better for (_, name), row in rows(version).items()}
    assert directions == {
        **dict.fromkeys(("acc", "acc_norm", "bleu,first", "exact_match,first"), True),
        **dict.fromkeys(("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter,first"), False),
    }


def test_what_a_file_gives_no_direction_has_that_of_its_name_or_none(tmp_path):
    values = {"bits_per_byte": [1.0, 2.0], "acc": [0.0, 1.0], "novelty": [0.1, 0.2]}
    path = write_results(tmp_path, values, higher_is_better=None)
    assert [row.higher_is_better for row in rows_of(read_results(path))] == [False, True, None]


def test_a_groups_direction_is_its_tasks_whatever_older_versions_mixed_up(tmp_path):
    path = write_results(
        tmp_path,
        {"acc": [0.0, 1.0]},
        results={"all": {"acc,none": 0.5, "acc_stderr,none": 0.1}, "one": {"acc,none": 0.5}},
        group_subtasks={"all": ["one"]},
        higher_is_better={"all": {"acc": None}, "one": {"acc": True}},
    )
    assert [row.higher_is_better for row in rows_of(read_results(path))] == [True, True]


@pytest.mark.parametrize("version", ["0.4.8", "0.4.13"])
def test_a_task_belongs_to_the_outermost_group_that_has_a_number(version):
    found = rows(version)
    assert found["toy_choice", "acc"].group == "toy_choice"
    assert found["toy_choice", "acc"].is_group
    assert found["toy_choice_one", "acc_norm"].group == "toy_choice_even"  # of the later run
    assert found["toy_last_word", "acc"].group == "toy_last_word"  # toy_mixed only holds tasks together
    assert found["toy_choice", "acc"].documents == 20


def test_versions_are_equal_however_they_are_written(tmp_path):
    protocols = set()
    for number, version in enumerate((1, 1.0, "1.0", "1")):
        path = write_results(tmp_path / str(number), {"acc": [1.0, 0.0]}, version=version)
        protocols.add(rows_of(read_results(path))[0].protocol)
    assert protocols == {"version 1, 0-shot, 2 of 2 documents"}


@pytest.mark.parametrize("change", [{"version": 2.0}, {"shots": 5}, {"in_all": 9}])
def test_another_version_number_of_examples_or_of_documents_is_another_protocol(tmp_path, change):
    paths = [write_results(tmp_path / str(bool(c)), {"acc": [1.0, 0.0]}, **c) for c in ({}, change)]
    one, other = (rows_of(read_results(path))[0].protocol for path in paths)
    assert one != other


def test_lss_over_other_targets_is_another_protocol(tmp_path):
    def protocol(target):
        values = {f"lss_{target}": [1.0, 0.0], "lss": [1.0, 0.0]}
        return rows_of(read_results(write_results(tmp_path / target, values)))[1].protocol

    assert protocol("ind_Latn") != protocol("rus_Cyrl")


def test_what_is_no_number_is_no_row(tmp_path):
    metrics = {"alias": "t", " ": " ", "sample_len": 3, "bypass,none": 999, "acc,none": 0.5, "acc_stderr,none": "N/A",
               "text,none": "N/A", "lost,none": None, "f1,none": math.nan}  # fmt: skip
    path = write_results(tmp_path, {"acc": [1.0, 0.0]}, results={"toy": metrics})
    found = {row.metric: row for row in rows_of(read_results(path))}
    assert list(found) == ["acc", "lost", "f1"]
    assert found["acc"].stderr is None
    assert math.isnan(found["lost"].value)
    assert math.isnan(found["f1"].value)


def test_an_amplified_models_condition_says_what_was_done_and_its_signature_is_its_own():
    amplify = {"signature": "model:x|op:set", "neurons": "sha256:00", "language": "task", "operation": "set",
               "factor": "1.0", "statistic": "max", "layers": "all", "neurons_of": "babel"}  # fmt: skip
    content = {"config": {"model_args": "neurons=a/random.safetensors,dtype=float32", "amplify": amplify}}
    assert entrant_of(content) == ("babel", "random.safetensors: task, set max 1.0", "model:x|op:set")


@pytest.mark.parametrize("arguments", ["pretrained=gpt2,parts=2", {"pretrained": "gpt2", "parts": 2}])
def test_a_stock_models_other_arguments_are_its_condition(arguments):
    content = {"config": {"model_args": arguments, "model_sha": "abc"}, "chat_template_sha": "ff"}
    entrant = entrant_of(content)
    assert entrant[:2] == ("gpt2", "parts=2, chat template")
    assert "gpt2@abc" in entrant.signature


def test_the_schema_is_documented_column_by_column():
    text = (REPOSITORY / "docs" / "results.md").read_text()
    assert f"version {SCHEMA_VERSION}" in text
    documented = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert documented[: len(fields(Row))] == [field.name for field in fields(Row)]


def spoiled(path: Path, how: str) -> Path:
    text = path.read_text()
    path.write_text({"cut": text[: len(text) // 2], "list": "[]", "empty": "", "other": '{"a": 1}'}.get(how, text))
    if how == "metrics":
        path.write_text(json.dumps(json.loads(text) | {"results": {"toy": 3}}))
    if how == "bytes":
        path.write_bytes(b"\xff\xfe{")
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "half-written"),
        ("empty", "half-written"),
        ("bytes", "damaged"),
        ("list", "not results of the harness"),
        ("other", "not results of the harness"),
        ("metrics", "'toy' has no metrics"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, how, says):
    path = spoiled(write_results(tmp_path, {"acc": share(1, 2)}), how)
    with pytest.raises(ResultsError, match=says) as caught:
        read_results(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("keep", "says"), [(0.9, "line 5 is damaged or half-written"), (0.59, "3 of 5 documents")])
def test_half_written_samples_are_named(tmp_path, keep, says):
    path = write_results(tmp_path, {"acc": share(1, 5)})
    samples = next(tmp_path.glob("samples_*"))
    text = samples.read_text()
    samples.write_text(text[: int(len(text) * keep)] if keep > 0.8 else "".join(text.splitlines(keepends=True)[:3]))
    with pytest.raises(ResultsError, match=says) as caught:
        read_results(path).documents("toy")
    assert str(caught.value).startswith(str(samples))


def test_samples_lie_beside_the_results_or_within_them(tmp_path):
    path = write_results(tmp_path, {"acc": share(1, 2)})
    beside = read_results(path).documents("toy")
    lines = [json.loads(line) for line in next(tmp_path.glob("samples_*")).read_text().splitlines()]
    within = tmp_path / "one_file.json"
    within.write_text(json.dumps(json.loads(path.read_text()) | {"samples": {"toy": lines}}))
    assert read_results(within).documents("toy") == beside
    assert read_results(within).documents("other") is None


def test_a_folder_gives_all_results_below_it_and_an_empty_one_says_so(tmp_path):
    write_results(tmp_path / "a" / "b", {"acc": share(1, 2)})
    (tmp_path / "a" / "config.json").write_text("{}")
    assert [path.parent.name for path in find_results([tmp_path])] == ["b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultsError, match="no results below it"):
        find_results([tmp_path / "empty"])
    with pytest.raises(ResultsError, match="no such file or folder"):
        find_results([tmp_path / "missing"])

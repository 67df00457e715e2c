"""amplify_xcopa: the harness's own XCOPA, request for request."""

from __future__ import annotations

import lm_eval
import pytest
import toy_tasks
from task_tools import STOCK, built, manager, ours, read_jsonl, stock

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.resources import tasks_folder


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror"))


def ours_and_stock(config, mirror, monkeypatch):
    code = toy_tasks.XCOPA_CONFIGS[config]
    folder = mirror / "cambridgeltl/xcopa" / config
    rows = {split: read_jsonl(folder / f"{split}.jsonl") for split in ("validation", "test")}
    theirs = stock(monkeypatch, "xcopa", f"xcopa_{config}", "cambridgeltl/xcopa", config, rows)
    return ours("xcopa", f"amplify_xcopa_{code}", mirror), theirs


def assert_parity(mine, theirs, **options):
    assert built(mine, **options) == built(theirs, **options)
    for number, (own, their) in enumerate(zip(mine.eval_docs, theirs.eval_docs, strict=True)):
        assert mine.doc_to_target(own) == theirs.doc_to_target(their)
        answers = [(-1.0 - (number % 2), False), (-1.5, True)]
        expected = theirs.process_results(their, answers)
        assert mine.process_results(own, answers).items() == {"acc": expected["acc"]}.items()
    assert mine.aggregation() == {"acc": theirs.aggregation()["acc"]}
    assert mine.higher_is_better()["acc"] is theirs.higher_is_better()["acc"] is True
    assert mine.VERSION == theirs.VERSION


@pytest.mark.parametrize("config", toy_tasks.XCOPA_CONFIGS)
@pytest.mark.parametrize("num_fewshot", [0, 2])
def test_every_request_and_score_is_that_of_the_harness_own_task(config, num_fewshot, mirror, monkeypatch):
    assert_parity(*ours_and_stock(config, mirror, monkeypatch), num_fewshot=num_fewshot, limit=5)


@pytest.mark.parametrize("config", ["et", "ht", "id", "sw", "ta", "zh"])
def test_every_request_on_the_real_rows_is_that_of_the_harness_own_task(config, real_data, monkeypatch):
    mine, theirs = ours_and_stock(config, real_data, monkeypatch)
    assert len(mine.eval_docs) == 500
    assert_parity(mine, theirs, num_fewshot=1)


def test_scores_on_real_rows_are_those_of_the_harness_own_task(real_data, saved, monkeypatch):
    """The whole evaluation, by stock hf: numbers, stderr and group."""
    both = ours_and_stock("id", real_data, monkeypatch)
    results = lm_eval.simple_evaluate(
        "hf",
        model_args=f"pretrained={saved('gpt2')}",
        tasks=list(both),
        task_manager=manager(tasks_folder()),
        limit=40,
        device="cpu",
        batch_size=8,
    )["results"]
    mine, theirs = results["amplify_xcopa_ind_Latn"], results["xcopa_id"]
    assert {name: mine[name] for name in ("acc,none", "acc_stderr,none")} == {
        name: theirs[name] for name in ("acc,none", "acc_stderr,none")
    }


def test_the_group_is_weighted_as_the_harness_own():
    mine = manager(tasks_folder() / "xcopa").task_index["amplify_xcopa"].cfg
    theirs = manager(STOCK / "xcopa").task_index["xcopa"].cfg
    assert mine["aggregate_metric_list"] == theirs["aggregate_metric_list"]
    assert len(mine["task"]) == len(theirs["task"]) == 11


def test_every_document_says_its_language(mirror):
    tasks = manager(tasks_folder() / "xcopa", data_dir=str(mirror)).load("amplify_xcopa")["tasks"]
    for name, task in tasks.items():
        assert {doc["amplify_language"] for doc in task.eval_docs} == {name.removeprefix("amplify_xcopa_")}


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

"""Several processes give the answers of one, however requests and languages fall to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import process_runs
import pytest
import torch
from harness_runs import assert_same_answers, requests
from lss_by_hand import write_mirror as write_facts
from lss_runs import synthetic_rows

from lm_eval_amplify.models.hf import AmplifiedHFLM

# As on GPUs; only with --multi_gpu does accelerate start several processes, and the variable keeps them on the CPU.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH += ["--main_process_port", "0"]
ENVIRONMENT = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def launch(*arguments) -> subprocess.CompletedProcess:
    command = [*LAUNCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)


@pytest.fixture(scope="module")
def runs(saved, neuron_path, mirror, tmp_path_factory):
    """Every run in one process and, process by process, in two."""
    folder = tmp_path_factory.mktemp("processes")
    facts = synthetic_rows()["id"]
    rows = [*facts, *(fact | {"template": "[X] dekat [Y]."} for fact in facts[:3])]
    given = {
        "pretrained": str(saved("qwen2")),
        "neurons": str(neuron_path("qwen2")),
        "data_dir": str(mirror),
        "facts_dir": str(write_facts(folder / "facts", {"id": rows})),
    }
    done = launch(
        Path(process_runs.__file__), json.dumps(given | {"cache": str(folder / "two" / "cache")}), folder / "out"
    )
    assert done.returncode == 0, done.stderr[-9000:]
    first, second = (json.loads((folder / f"out.{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    one = process_runs.run_all(**given, cache=str(folder / "one" / "cache"))
    left = sorted(path.name for path in folder.glob("out.*.left"))
    return SimpleNamespace(one=json.loads(json.dumps(one, default=str)), first=first, second=second, left=left)


@pytest.mark.parametrize("name", process_runs.RUNS)
def test_two_processes_give_the_answers_of_one(runs, name):
    one, two = runs.one[name], runs.first[name]
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert runs.second[name]["results"] is None
    assert two["samples"].keys() == one["samples"].keys()
    for task, logged in one["samples"].items():
        if name != "not finite":
            assert_same_answers(logged, two["samples"][task])
        assert two["results"][task].keys() == one["results"][task].keys()
        for metric, value in one["results"][task].items():
            expected = pytest.approx(value, rel=1e-5, abs=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert two["results"][task][metric] == expected


def test_the_languages_fell_to_the_processes_unevenly():
    languages = process_runs._LANGUAGES
    assert (languages[0::2].count("est_Latn"), languages[1::2].count("est_Latn")) == (0, 2)
    assert (languages[0::2].count("zho_Hans"), languages[1::2].count("zho_Hans")) == (3, 0)


def test_answers_that_are_not_finite_are_counted_over_all_processes(runs):
    for runs_of in (runs.one, runs.first):
        counts = {task: found["nonfinite,none"] for task, found in runs_of["not finite"]["results"].items()}
        assert set(counts.values()) == {len(process_runs._LANGUAGES)}


def test_a_process_whose_share_is_cached_is_not_waited_for(runs):
    assert runs.first["cached again"]["forwards"] == runs.first["cached"]["forwards"] > 0
    assert runs.second["cached"]["forwards"] > runs.second["cached again"]["forwards"]


def test_a_process_leaves_the_group_before_it_ends(runs):
    """One that does not may abort when all is done, as a thread of the group still holds a tensor."""
    assert runs.left == ["out.0.left", "out.1.left"]


def test_the_command_line_runs_under_accelerate_launch(saved, neuron_path, mirror, tmp_path):
    options = ["--model", "amplified_hf", "--tasks", "amplify_xcopa_ind_Latn,amplify_xcopa_zho_Hans", "--limit", 3]
    options += ["--model_args", f"pretrained={saved('qwen2')},neurons={neuron_path('qwen2')}", "--log_samples"]
    options += ["--metadata", json.dumps({"data_dir": str(mirror)}), "--output_path", tmp_path]
    done = launch("-m", "lm_eval", *options)
    assert done.returncode == 0, done.stderr[-9000:]
    assert done.stdout.count("|amplify_xcopa_ind_Latn|") == 1, "one table"
    for language in ("ind_Latn", "zho_Hans"):
        (logged,) = tmp_path.glob(f"*/samples_amplify_xcopa_{language}_*.jsonl")
        assert sorted(json.loads(line)["doc_id"] for line in logged.read_text().splitlines()) == [0, 1, 2]


def test_a_process_takes_its_rank_among_all_machines(saved, neuron_path):
    """The harness takes the rank on its own machine, so that machines would share out the same documents."""
    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), language="ind_Latn", device="cpu")
    lm._rank, lm._world_size = 1, 4
    lm.accelerator = SimpleNamespace(process_index=3, num_processes=4)
    lm._share_out()
    assert (lm.rank, lm.world_size) == (3, 4)


def test_processes_that_do_not_know_of_each_other_are_warned(saved, neuron_path, monkeypatch, caplog):
    """As started on a CPU without ACCELERATE_USE_CPU."""
    given = {"neurons": str(neuron_path("qwen2")), "language": "ind_Latn", "device": "cpu"}
    AmplifiedHFLM(str(saved("qwen2")), **given)
    assert "each does everything" not in caplog.text
    monkeypatch.setenv("WORLD_SIZE", "2")
    AmplifiedHFLM(str(saved("qwen2")), **given)
    assert "one of 2 processes, but each does everything: without GPUs set ACCELERATE_USE_CPU=true" in caplog.text


def test_no_process_talks_to_another_within_a_group_of_requests(saved, neuron_path, monkeypatch):
    """Groups differ from process to process, and under --use_cache some have nothing left to run."""
    lm = AmplifiedHFLM(
        str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu", batch_size="auto", max_batch_size=1
    )
    lm._world_size = 2
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda *_: pytest.fail("talked"))
    monkeypatch.setattr(AmplifiedHFLM, "all_gather", lambda *_: pytest.fail("talked"))
    for kind in process_runs.TYPES:
        assert len(getattr(lm, kind)(requests(kind), disable_tqdm=True)) == 3
    assert lm.world_size == 2

"""The demonstration as a user runs it: what it prints, what it keeps, and where it may not run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lm_eval_amplify.neurons import read_neurons

COMMAND = [sys.executable, "-m", "lm_eval_amplify.cli", "demo"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run that keeps its results, on a poor terminal and without a home directory."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "HF_HOME", "LC_ALL")}
    environment |= {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*COMMAND, "--out", "kept"], cwd=folder, env=environment | {"HOME": "/nonexistent"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_says_what_was_found_and_what_to_run_next(demo):
    _, printed = demo
    assert printed.isascii()
    assert "neurons of 18 languages" in printed
    assert printed.count("with the neurons of") == 2
    assert "lm_eval --model amplified_hf --model_args neurons=babel,factor=1 --tasks amplify_lss" in printed


def rows_of(printed):
    """Operation, statistic, LSS, LSS of random neurons."""
    cells = [line.strip("| \n").split("|") for line in printed.splitlines() if line.startswith("|") and "0." in line]
    return [(c[0].strip(), c[1].strip(), float(c[-2]), float(c[-1])) for c in cells]


def test_setting_a_languages_neurons_steers_to_it_and_random_neurons_do_less(demo):
    rows = rows_of(demo[1])
    assert [row[:2] for row in rows][:1] == [("set", "max")]
    assert len(rows) == 4
    assert rows[0][2] > rows[0][3] + 0.1


def test_it_keeps_neuron_files_and_the_harness_own_results(demo):
    folder, printed = demo
    found = read_neurons(folder / "kept" / "neurons.safetensors")
    assert len(found.languages) == 18
    results = sorted((folder / "kept" / "results").rglob("results_*.json"))
    samples = sorted((folder / "kept" / "results").rglob("samples_*.jsonl"))
    assert len(results) == 8
    assert len(samples) == 24
    first = json.loads(results[0].read_text())
    assert "amplify_lss_eng_Latn" in first["results"]
    assert "signature" in first["config"]["amplify"]
    assert "kept" in printed


def test_a_folder_that_cannot_be_written_is_one_line_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*COMMAND, "--out", str(tmp_path / "file" / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lm-eval-amplify: error: cannot write to ")
    assert "Traceback" not in done.stderr


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    running = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    try:
        _, said = running.communicate(timeout=60)
    except subprocess.TimeoutExpired:  # Python drops an interrupt that comes in a destructor
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    assert running.returncode in (1, 130)
    assert b"Traceback" not in said
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")] == []

"""Identification that two processes share gives the neurons of one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import texts
import tiny
import torch
from accelerate import PartialState
from test_identify_cli import identify as arguments
from test_processes import launch

from lm_eval_amplify import cli
from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.neurons import read_neurons
from lm_eval_amplify.processes import Processes


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, corpus = tiny.saved_model("qwen2", tmp_path / "model"), texts.folder(tmp_path / "corpus")
    # Several documents a batch, and a language whose one document is all of the first process's.
    (corpus / "ind_Latn.txt").write_text(" ".join(texts.sentences("ind_Latn", 40)), encoding="utf-8")
    more = ["--max-length", 32, "--batch-size", 1]
    one, two = tmp_path / "one", tmp_path / "two"
    done = launch("-m", "lm_eval_amplify.cli", *arguments(model, corpus, two, *more, "--counts", tmp_path / "counts"))
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.count(f"written to {two}") == 1
    monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", *map(str, arguments(model, corpus, one, *more))])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    found, expected = read_neurons(two), read_neurons(one)
    assert found.manifest == expected.manifest
    for language, own in expected.neurons.items():
        np.testing.assert_array_equal(own.layer, found.neurons[language].layer)
        np.testing.assert_array_equal(own.index, found.neurons[language].index)
        for name, values in own.statistics.items():
            np.testing.assert_allclose(found.neurons[language].statistics[name], values, rtol=1e-4, atol=1e-6)
    kept = torch.load(tmp_path / "counts" / "est_Latn.counts.pt", weights_only=True)
    assert kept["n"] == 120


def test_processes_that_do_not_know_of_each_other_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    PartialState(cpu=True)  # this process alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ModelError, match="one of 2 processes, but accelerate knows of 1: start them with"):
        Processes()

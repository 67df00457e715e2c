"""Fixtures that several test files use, and the rule that in CI a skipped test is a failure."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import toy_tasks
from torch.utils import collect_env

from lm_eval_amplify.neurons import write_neurons

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes started here: tiny models only wait for more threads
torch.set_num_threads(1)

# The harness describes the machine in every result, by some dozen subprocesses: once is enough for all tests.
collect_env.get_pretty_env_info = functools.cache(collect_env.get_pretty_env_info)

REPOSITORY = Path(__file__).resolve().parents[1]
ALLOWED_SKIPS = (Path(__file__).parent / "allowed_skips.txt").read_text().splitlines()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A mirror of the real datasets: the folder LM_EVAL_AMPLIFY_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("LM_EVAL_AMPLIFY_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "cambridgeltl").is_dir():
        pytest.skip("no mirror of the real datasets here")
    return folder.resolve()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny model of a family with its tokenizer, saved once per run."""
    folders: dict[str, Path] = {}

    def save(family: str) -> Path:
        if family not in folders:
            folders[family] = tiny.saved_model(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return save


@pytest.fixture(scope="session")
def neuron_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A neuron file for a family's tiny model, written once per run."""
    paths: dict[str, Path] = {}

    def write(family: str) -> Path:
        if family not in paths:
            paths[family] = tmp_path_factory.mktemp("neurons") / f"{family}.neurons.safetensors"
            write_neurons(tiny.neurons(family), paths[family])
        return paths[family]

    return write


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of XCOPA, five documents a language."""
    return toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="session")
def evaluate(mirror: Path) -> Callable[..., dict]:
    """``simple_evaluate`` on our tasks, with the mirror, and on inline ones."""
    from harness_runs import evaluator  # imports the harness, which other tests do without

    return evaluator(mirror)


@pytest.fixture(scope="session")
def index() -> Callable[..., dict]:
    """The harness's index of its thirteen thousand tasks, read once."""
    from lm_eval.tasks import manager

    build = manager.TaskIndex.build
    return functools.cache(lambda paths: build(list(paths)))


@pytest.fixture
def lm_eval(monkeypatch, capfd, index, mirror, saved, neuron_path):
    """Run ``lm_eval --model amplified_hf`` on tiny Qwen2 in this process; returns (exit status, stdout, stderr)."""
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks import manager

    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # its handler would outlive this capture
    monkeypatch.setattr(manager.TaskIndex, "build", staticmethod(lambda paths: dict(index(tuple(paths)))))

    def run(*options, tasks="amplify_xcopa_ind_Latn", data_dir=mirror, model="amplified_hf", **model_args):
        given = {"pretrained": saved("qwen2"), "neurons": neuron_path("qwen2")} | model_args
        joined = ",".join(f"{name}={value}" for name, value in given.items() if value is not None)
        argv = ["lm_eval", "--model", model, "--model_args", joined, "--tasks", tasks, "--device", "cpu"]
        argv += ["--metadata", json.dumps({"data_dir": str(data_dir)}), *map(str, options)]
        monkeypatch.setattr(sys, "argv", argv)
        status = 0
        try:
            cli_evaluate()
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI for a reason that allowed_skips.txt does not have: {reason}"
    return report

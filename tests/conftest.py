"""Fixtures that several test files use, and the rule that in CI a skipped test is a failure."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import toy_tasks
from torch.utils import collect_env

from lm_eval_amplify.neurons import write_neurons

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if reason.removeprefix("Skipped: ") not in ALLOWED_SKIPS:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI for a reason that allowed_skips.txt does not have: {reason}"
    return report

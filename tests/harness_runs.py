"""Runs of the harness on our tasks and inline ones, what they logged, and requests made by hand."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lm_eval
import lm_eval.tasks
import torch
import toy_tasks
from lm_eval.api.instance import Instance

from lm_eval_amplify.resources import tasks_folder

XCOPA = ["amplify_xcopa_ind_Latn", "amplify_xcopa_zho_Hans", "amplify_xcopa_est_Latn"]
TYPES = ("loglikelihood", "loglikelihood_rolling", "generate_until")


def evaluator(data_dir: Path, **metadata: str) -> Callable[..., dict]:
    """``simple_evaluate`` with our tasks and inline ones, without the harness's thirteen thousand."""
    manager = lm_eval.tasks.TaskManager(
        include_path=str(tasks_folder()), include_defaults=False, metadata={"data_dir": str(data_dir)} | metadata
    )

    def run(model, model_args, tasks, **options):
        return lm_eval.simple_evaluate(
            model,
            model_args=model_args,
            tasks=tasks,
            task_manager=manager,
            device="cpu",
            bootstrap_iters=0,
            **{"batch_size": 4} | options,
        )

    return run


@contextmanager
def quick_batch_detection() -> Iterator[None]:
    """``batch_size=auto`` collects garbage at each size that it tries: only what has come up since."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def samples(results: dict) -> dict:
    """Everything that was logged, by task; the documents' text is compared with it."""
    return json.loads(json.dumps(results["samples"], default=str))


def toys(*types: str) -> list[dict]:
    return [toy_tasks.inline_task(kind) for kind in types or TYPES]


def everything(*types: str) -> list:
    return [*XCOPA, *toys(*types)]


def numbers(sample: dict) -> torch.Tensor:
    """A sample's first answer to each request: log-likelihoods."""
    return torch.tensor([float(resp[0][0] if isinstance(resp[0], list) else resp[0]) for resp in sample["resps"]])


def assert_same_answers(one: list[dict], other: list[dict]) -> None:
    """Texts are equal, log-likelihoods up to the rounding of another batch."""
    by_document = (sorted(logged, key=lambda sample: sample["doc_id"]) for logged in (one, other))
    for mine, theirs in zip(*by_document, strict=True):
        assert mine["arguments"] == theirs["arguments"]
        if isinstance(mine["resps"][0][0], str):
            assert mine["resps"][0][0] == theirs["resps"][0][0]
        else:
            torch.testing.assert_close(numbers(mine), numbers(theirs), atol=2e-4, rtol=1e-5)


def requests(kind: str, languages=("ind_Latn",) * 3, task: str = "toy") -> list[Instance]:
    """Requests of some type, each in a language, of documents that carry it; None: that do not."""
    rows = toy_tasks._documents()["test"]
    arguments = {
        "loglikelihood": lambda row: (row["text"], " " + row["other"]),
        "loglikelihood_rolling": lambda row: (row["text"],),
        "generate_until": lambda row: (row["text"], {"until": ["\n"], "max_gen_toks": 6}),
    }[kind.removesuffix("_amplified").removesuffix("_unamplified")]
    return [
        Instance(kind, {"amplify_language": language} if language else {}, arguments(rows[i]), 0, (task, i, 1))
        for i, language in enumerate(languages)
    ]


def assert_one_line(result: tuple[int, str, str], message: str) -> None:
    """A run of a command line ended with status 2 and one line, in which the pattern ``message`` is found."""
    status, out, err = result
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("lm_eval: error: ")
    assert re.search(message, last), last
    assert "Traceback" not in out + err

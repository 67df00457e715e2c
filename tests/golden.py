"""Golden results: what the embedded model gets on every task that needs no data from elsewhere.

    python tests/golden.py    # writes them anew, after a change that is meant to change them

tests/test_golden.py compares a run with them, document by document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

FILE = Path(__file__).parent / "golden" / "babel.json"

TASKS = {"lss": 10, "lss_langid": 2, "babel_ppl": 10}
"""Folders of tasks without data from elsewhere, and how many documents of each task are run."""
TARGETS = ("ind_Latn", "rus_Cyrl", "swh_Latn")

_KEPT = ("results", "group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "lm_eval_version")
_KEPT_OF_CONFIG = ("model", "model_args", "amplify", "limit", "gen_kwargs")
_KEPT_OF_SAMPLES = ("doc_id", "doc_hash", "filter", "metrics")


def evaluate(names: Mapping[str, int] = TASKS, *, batch_size: int = 64, **model_args: object) -> dict:
    """Run the groups of these folders, or single tasks by name, with so many documents each; returns all results."""
    results: dict = {}
    for name, limit in names.items():
        own = _evaluate(name, limit, batch_size, model_args)
        for part, content in own.items():
            results[part] = {**results.get(part, {}), **content} if isinstance(content, dict) else content
    return results


def write(results: Mapping, path: Path) -> Path:
    """Write results without what differs between machines and moments, a document a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {part: results[part] for part in _KEPT}
    kept["config"] = {name: value for name, value in results["config"].items() if name in _KEPT_OF_CONFIG}
    samples = ",\n".join(
        f"{json.dumps(task)}: [\n" + ",\n".join(json.dumps(_reduced(sample)) for sample in logged) + "]"
        for task, logged in sorted(results["samples"].items())
    )
    head = json.dumps(kept, indent=1, sort_keys=True, default=str).removesuffix("\n}")
    path.write_text(f'{head},\n "samples": {{{samples}}}\n}}\n')
    return path


def _reduced(sample: Mapping) -> dict:
    return {name: sample[name] for name in (*_KEPT_OF_SAMPLES, *sample["metrics"])}


def _evaluate(name: str, limit: int, batch_size: int, model_args: Mapping[str, object]) -> dict:
    import lm_eval
    from lm_eval.tasks import TaskManager

    from lm_eval_amplify.resources import tasks_folder

    folder = name if name in TASKS else max((one for one in TASKS if f"amplify_{one}_" in name), key=len)
    tasks = TaskManager(
        include_path=str(tasks_folder() / folder), include_defaults=False, metadata={"targets": list(TARGETS)}
    )
    with _no_description_of_the_machine():
        return lm_eval.simple_evaluate(
            "amplified_hf",
            model_args={"neurons": "babel", **model_args},
            tasks=[name if name.startswith("amplify_") else f"amplify_{name}"],
            task_manager=tasks,
            limit=limit,
            batch_size=batch_size,
            device="cpu",
            bootstrap_iters=0,
        )


@contextmanager
def _no_description_of_the_machine():
    with mock.patch("lm_eval.evaluator.add_env_info", lambda results: results.update(lm_eval_version=_version())):
        yield


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print("written to", write(evaluate(), FILE))

"""Evaluations that several processes share, as one of them: ``accelerate launch ... process_runs.py ARGUMENTS OUT``."""

from __future__ import annotations

import atexit
import json
import sys
from pathlib import Path
from typing import Any

import conftest  # noqa: F401  # describes the machine once for all results
import datasets
import toy_tasks
from harness_runs import TYPES, evaluator, quick_batch_detection

from lm_eval_amplify.models.hf import AmplifiedHFLM

LSS = "amplify_lss_mlama_ind_Latn"

# Even documents are the first process's, odd ones the second's: Chinese has the first alone, Estonian the second.
_LANGUAGES = ["zho_Hans", "ind_Latn"] * 2 + ["ind_Latn", "est_Latn"] * 2 + ["zho_Hans", "ind_Latn", "ind_Latn"]


def _documents(**_metadata: Any) -> dict[str, datasets.Dataset]:
    rows = toy_tasks._documents()["test"]
    return {
        "test": datasets.Dataset.from_list(
            [rows[i] | {"amplify_language": language} for i, language in enumerate(_LANGUAGES)]
        )
    }


UNEVEN = [toy_tasks.inline_task(kind, custom_dataset=_documents) for kind in TYPES]

# The model's arguments and the tasks of each run; all under language=task where nothing else is said.
RUNS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "batches of two": ({"batch_size": 2}, [*UNEVEN, LSS]),
    "auto": ({"batch_size": "auto", "max_batch_size": 2}, [*UNEVEN, LSS]),
    "auto in parts": ({"batch_size": "auto:2", "max_batch_size": 2}, UNEVEN[:1]),
    "not finite": ({"batch_size": 2, "operation": "add", "statistic": "one", "factor": 1e39}, UNEVEN),
    "cached": ({"batch_size": 2, "language": "ind_Latn"}, UNEVEN),
    "cached again": ({"batch_size": 2, "language": "ind_Latn"}, UNEVEN),
}


def run_all(pretrained: str, neurons: str, data_dir: str, facts_dir: str, cache: str) -> dict[str, Any]:
    """Results and samples of every run, None in all processes but the first; who answered how much from the cache."""
    everything: dict[str, Any] = {}
    for name, (arguments, tasks) in RUNS.items():
        lm = AmplifiedHFLM(pretrained, neurons=neurons, device="cpu", **{"factor": 2} | arguments)
        forwards: list[int] = []
        lm.model.register_forward_hook(lambda *_, forwards=forwards: forwards.append(1))
        options = {"use_cache": cache} if name.startswith("cached") else {}
        if name == "cached again" and lm.rank == 0:  # the first process has lost its answers, others have all of theirs
            Path(f"{cache}_rank0.db").unlink()
        evaluate = evaluator(Path(facts_dir if LSS in tasks else data_dir), targets="est_Latn+zho_Hans")
        with quick_batch_detection():
            results = evaluate(lm, None, tasks, **options)
        everything[name] = {
            "world_size": lm.world_size,
            "forwards": len(forwards),
            "results": results and results["results"],
            "samples": results and results["samples"],
        }
    return everything


if __name__ == "__main__":
    import torch.distributed
    from accelerate import PartialState

    given, out = json.loads(sys.argv[1]), Path(sys.argv[2])

    @atexit.register  # before the package's own, so that it runs after it
    def _tell_whether_the_group_was_left() -> None:
        if not torch.distributed.is_initialized():
            out.with_suffix(f".{rank}.left").touch()

    found = run_all(**given)
    rank = PartialState().process_index
    out.with_suffix(f".{rank}.json").write_text(json.dumps(found, default=str), encoding="utf-8")

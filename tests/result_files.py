"""Results in the harness's form: real ones of two versions, and small ones made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

REAL = Path(__file__).parent / "harness_results"
DATE = "2026-01-02T03-04-05.678901"


def write_results(
    folder: Path,
    values: Mapping[str, Sequence[float]],
    *,
    task: str = "toy",
    higher_is_better: bool | None = True,
    version: object = 1.0,
    shots: int = 0,
    in_all: int | None = None,
    stderr: float | str = "N/A",
    has_samples: bool = True,
    model_args: object = "pretrained=toy",
    date: float = 1767323045.0,
    **content: object,
) -> Path:
    """Write results of one task and its samples, of values by metric and document; returns the results' path."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(next(iter(values.values())))
    metrics: dict[str, object] = {"alias": task}
    for name, own in values.items():
        metrics |= {f"{name},none": sum(own) / len(own), f"{name}_stderr,none": stderr}
    directions = {} if higher_is_better is None else {task: dict.fromkeys(values, higher_is_better)}
    results = {
        "results": {task: metrics},
        "group_subtasks": {task: []},
        "configs": {task: {}},
        "versions": {task: version},
        "n-shot": {task: shots},
        "higher_is_better": directions,
        "n-samples": {task: {"original": in_all or number, "effective": number}},
        "config": {"model": "hf", "model_args": model_args},
        "date": date,
        "model_name": "toy",
    }
    path = folder / f"results_{DATE}.json"
    path.write_text(json.dumps(results | content))
    if has_samples:
        lines = [
            {"doc_id": i, "filter": "none", "metrics": list(values), "doc_hash": f"{task}{i}"}
            | {name: own[i] for name, own in values.items()}
            for i in range(number)
        ]
        (folder / f"samples_{task}_{DATE}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def share(right: int, of: int) -> list[float]:
    """So many documents right, and the others wrong."""
    return [1.0] * right + [0.0] * (of - right)

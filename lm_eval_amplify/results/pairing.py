"""The documents of two runs brought together, so that what they share need not be taken for chance."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from lm_eval_amplify.results.aggregates import Reported, pair_documents
from lm_eval_amplify.results.files import Document, ResultsFile
from lm_eval_amplify.results.rows import Row, groups_of, leaves_of
from lm_eval_amplify.results.stats import Paired

_CLOSE = 1e-9


class Run:
    """A file of results with its rows; samples are read when they are first asked for.

    Args:
        file: The file.
        rows: Its rows.
    """

    def __init__(self, file: ResultsFile, rows: list[Row]) -> None:
        self.file = file
        self.rows = rows
        self._documents: dict[str, dict[str, dict[int, Document]] | None] = {}

    @cached_property
    def by_key(self) -> dict[tuple[str, str, str], Row]:
        """Rows by task, metric and filter."""
        return {row.key: row for row in self.rows}

    def documents(self, task: str) -> dict[str, dict[int, Document]] | None:
        """Return a task's documents by filter and number; see :meth:`ResultsFile.documents`."""
        if task not in self._documents:
            self._documents[task] = self.file.documents(task)
        return self._documents[task]

    def tasks_of(self, row: Row) -> list[Row]:
        """Return the rows that a row is made of: itself, or those of a group's tasks that have the metric."""
        leaves = leaves_of(row.task, groups_of(self.file.content)) or [row.task]
        keys = [(leaf, row.metric, row.filter) for leaf in leaves]
        return [self.by_key[key] for key in keys if key in self.by_key]

    def sacrebleu_signature(self, row: Row) -> str:
        """Return what the task's configuration says of a metric's signature; empty where it says nothing."""
        config: dict[str, Any] = (self.file.content.get("configs") or {}).get(row.task) or {}
        return str((config.get("sacrebleu") or {}).get(row.metric) or "")


def paired_parts(old: tuple[Run, Row], new: tuple[Run, Row]) -> list[Paired] | str:
    """Return a metric of two runs by document, task by task, or why that cannot be had."""
    mine, theirs = (run.tasks_of(row) for run, row in (old, new))
    parts: list[Paired] = []
    for one, other in zip(mine, theirs, strict=False):
        part = _pair(old[0], one, new[0], other)
        if isinstance(part, str):
            return part
        parts.append(part)
    if not parts:
        return "no task of the group has the metric"
    if not old[1].is_group:
        return parts
    weights = _weights([mine, theirs], [old[1].value, new[1].value], [len(part.old) for part in parts])
    if weights is None:
        return "the group's number is no mean over its tasks"
    return [part._replace(weight=weight) for part, weight in zip(parts, weights, strict=True)]


def _pair(old: Run, mine: Row, new: Run, theirs: Row) -> Paired | str:
    sides = [(old, mine), (new, theirs)]
    documents = []
    for side, (run, row) in zip(("old", "new"), sides, strict=True):
        logged = (run.documents(row.task) or {}).get(row.filter)
        if logged is None:
            return f"the {side} results have no samples, which --log_samples writes"
        documents.append(logged)
    if documents[0].keys() != documents[1].keys():
        return "the documents differ"
    numbers = sorted(documents[0])
    digests = [[logged[number].digest for number in numbers] for logged in documents]
    if digests[0] != digests[1]:
        return "the documents differ"
    try:
        values = [[logged[number].values[mine.metric] for number in numbers] for logged in documents]
    except KeyError:
        return "some documents have no value of it"
    before, after = (Reported(one, row.value) for one, (_, row) in zip(values, sides, strict=True))
    paired = pair_documents(mine.metric, before, after, old.sacrebleu_signature(mine))
    return paired if paired is not None else "how it comes from the documents is not known"


def _weights(sides: list[list[Row]], values: list[float], sizes: list[int]) -> list[float] | None:
    """By documents or equal, whichever gives the numbers that the runs reported."""
    for weights in (sizes, [1] * len(sizes)):
        shares = [weight / sum(weights) for weight in weights]
        made = [sum(share * row.value for share, row in zip(shares, rows, strict=True)) for rows in sides]
        if all(math.isclose(*pair, rel_tol=_CLOSE, abs_tol=_CLOSE) for pair in zip(made, values, strict=True)):
            return shares
    return None

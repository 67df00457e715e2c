"""Which condition is best for each language: by a metric on one half of the documents, under a limit on the damage."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_amplify.errors import ResultsError, StudyError
from lm_eval_amplify.results.files import Document, ResultsFile
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.halves import Split
from lm_eval_amplify.sweep.study import Bound

Half = Callable[[int, Split], bool]


class Measured(NamedTuple):
    """A condition with what is known of it for one language."""

    condition: Condition
    value: float
    """Of the metric, on the documents that choose; NaN where it has none."""
    damage: float | None
    """Of the limit's metric in other languages: ratio to the unamplified model's, or difference; None: no limit."""


class Rule(NamedTuple):
    """What is best."""

    higher_is_better: bool
    limit: Bound | None
    limit_higher_is_better: bool = False

    def allows(self, damage: float | None) -> bool:
        """Return whether a damage is within the limit."""
        if self.limit is None:
            return True
        most = self.limit.ratio if self.limit.ratio is not None else self.limit.difference
        if damage is None or most is None or math.isnan(damage):
            return False
        return damage >= most if self.limit_higher_is_better else damage <= most

    def best(self, measured: Sequence[Measured]) -> Measured | None:
        """Return the best that is allowed, of equals the one of least damage, of these the first; None: none is."""
        allowed = [one for one in measured if self.allows(one.damage) and not math.isnan(one.value)]
        sign = 1 if self.higher_is_better else -1
        less = -1 if self.limit_higher_is_better else 1
        return max(allowed, key=lambda one: (sign * one.value, -less * (one.damage or 0.0)), default=None)


def metric_of(
    documents_of: Callable[[str], Mapping[int, Document]],
    languages: Mapping[str, str | None],
    metric: str,
    target: str,
    split: Split,
    half: Half,
    *,
    is_two_sided: bool,
) -> float:
    """Return a metric for a target language over half of the documents; NaN where it has no value.

    The mean over tasks of each task's mean over documents.

    Args:
        documents_of: Returns a task's documents, by number.
        languages: Of the unit's tasks.
        metric: Without target.
        target: FLORES-200 code.
        split: How documents are split.
        half: Which documents count: :func:`~lm_eval_amplify.sweep.halves.is_chosen_by`, or ``is_reported``.
        is_two_sided: Whether the tasks compare both sides, and have a metric of each target (``lss_ind_Latn``): then
            all of them that have the target's count, else those in the target language.

    Raises:
        StudyError: The metric is no mean over documents.
    """
    name = f"{metric}_{target}" if is_two_sided else metric
    means = []
    for task, language in languages.items():
        documents = documents_of(task) if is_two_sided or language == target else {}
        if not _has(documents, name):
            continue
        values: list[Any] = [one.values.get(name) for number, one in documents.items() if half(number, split)]
        if not all(isinstance(value, (int, float)) for value in values):
            raise StudyError(
                f"choose.metric {metric}: of {task} it is no mean over documents; choose by acc or lss, say"
            )
        known = [value for value in values if not math.isnan(value)]
        if known:
            means.append(math.fsum(known) / len(known))
    return math.fsum(means) / len(means) if means else math.nan


def _has(documents: Mapping[int, Document], name: str) -> bool:
    return any(name in one.values for one in documents.values())


def damage_of(
    amplified: ResultsFile,
    unamplified: ResultsFile,
    languages: Mapping[str, str | None],
    metric: str,
    target: str,
    limit: Bound,
) -> float:
    """Return what amplification does to the tasks in other languages than the target: the mean over them.

    The ratio of the amplified model's metric to the unamplified one's, or the difference, whichever the limit is of.

    Raises:
        ResultsError: A task lacks the metric.
    """
    found = []
    for task, language in languages.items():
        if language == target:
            continue
        new, old = (_reported(results, task, metric) for results in (amplified, unamplified))
        found.append(new - old if limit.ratio is None else new / old if old else math.nan)
    return math.fsum(found) / len(found) if found else math.nan


def _reported(results: ResultsFile, task: str, metric: str) -> float:
    metrics: Mapping[str, Any] = results.content["results"].get(task) or {}
    for name, value in metrics.items():
        if name.partition(",")[0] == metric and isinstance(value, (int, float)):
            return float(value)
    raise ResultsError(f"{results.path}: {task} has no metric {metric}")


def summarise(values: Iterable[float]) -> dict[str, float] | None:
    """Return mean, least and greatest of the values that are known; None where none is."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    return {"mean": math.fsum(known) / len(known), "min": min(known), "max": max(known)}

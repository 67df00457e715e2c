"""The choice of a study: every condition measured for every language, from the units in its folder."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from lm_eval_amplify.results.files import Document, ResultsFile
from lm_eval_amplify.sweep.choosing import Measured, damage_of, metric_of, summarise
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.halves import is_chosen_by, is_reported
from lm_eval_amplify.sweep.prepare import Prepared
from lm_eval_amplify.sweep.store import Unit
from lm_eval_amplify.sweep.study import Choose
from lm_eval_amplify.sweep.suites import Suite

_logger = logging.getLogger(__name__)

Halves = tuple[float, float]
"""A metric on the documents that choose, and on those that are reported."""


def choose(prepared: Prepared, rule: Choose, results_of: Callable[[Unit], ResultsFile]) -> dict[str, Any]:
    """Return what is chosen for each language, with every candidate, as study.json has it.

    Args:
        prepared: The study.
        rule: What it chooses by.
        results_of: Reads a finished unit.

    Raises:
        AmplifyError: The metric is no mean over documents, or results are damaged.
    """
    results_of = cache(results_of)  # the unamplified ones are asked for again and again
    values = {
        condition: _values(prepared, rule, condition, results_of)
        for one in prepared.conditions
        for condition in (one, *map(one.with_random_neurons, prepared.file.study.controls.random))
    }
    languages = {target: _chosen(prepared, rule, target, values, results_of) for target in prepared.languages}
    limit = rule.bound
    return {
        "metric": rule.metric,
        "task": rule.task,
        "split": rule.split,
        "limit": {} if limit is None else {limit[0]: limit[1].model_dump(exclude_none=True)},
        "limit_task": None if prepared.limit_suite is None else prepared.limit_suite.name,
        "languages": languages,
    }


def _chosen(
    prepared: Prepared,
    rule: Choose,
    target: str,
    values: Mapping[Condition, Mapping[str, Halves]],
    results_of: Callable[[Unit], ResultsFile],
) -> dict[str, Any]:
    measured = [
        Measured(one, values[one][target][0], _damage(prepared, rule, one, target, results_of))
        for one in prepared.conditions
    ]
    best = prepared.rule.best(measured)
    if best is None:
        _logger.warning("%s: %s; nothing is chosen, and nothing runs with it", target, _why_none(measured))
    seeds = prepared.file.study.controls.random if best is not None else ()
    return {
        "condition": None if best is None else best.condition.as_dict(),
        "value": None if best is None else best.value,
        "held_out": None if best is None else values[best.condition][target][1],
        "random": summarise(values[best.condition.with_random_neurons(seed)][target][1] for seed in seeds if best),
        "damage": None if best is None else best.damage,
        "candidates": [
            {
                "condition": one.condition.as_dict(),
                "value": one.value,
                "damage": one.damage,
                "allowed": prepared.rule.allows(one.damage),
            }
            for one in measured
        ],
    }


def _why_none(measured: Sequence[Measured]) -> str:
    if all(math.isnan(one.value) for one in measured):
        return "the task has no value for it"
    if all(one.damage is not None and math.isnan(one.damage) for one in measured):
        return "there is no task in another language to limit the damage by"
    return "no condition stays under the limit"


def _values(
    prepared: Prepared, rule: Choose, condition: Condition, results_of: Callable[[Unit], ResultsFile]
) -> dict[str, Halves]:
    """The metric for each target language; of a task that runs once for a condition its samples are read once."""
    suite = prepared.suite(rule.task)
    by_target = not suite.is_two_sided and prepared.part(suite).amplify != "self"
    found: dict[str, Halves] = {}
    read: _ReadOnce | None = None
    for target in prepared.languages:
        if not suite.has_value_for(target):
            found[target] = math.nan, math.nan
            continue
        if read is None or by_target:
            of_unit = condition.of_language(target) if by_target else condition
            read = _ReadOnce(results_of(Unit("sweep", suite.name, of_unit)))
        languages = _ran(suite, read.file)
        chosen, reported = (
            metric_of(read.documents, languages, rule.metric, target, rule.split, half, is_two_sided=suite.is_two_sided)
            for half in (is_chosen_by, is_reported)
        )
        found[target] = chosen, reported
    return found


class _ReadOnce:
    def __init__(self, file: ResultsFile) -> None:
        self.file = file
        self._read: dict[str, Mapping[int, Document]] = {}

    def documents(self, task: str) -> Mapping[int, Document]:
        """A task's documents under its first filter."""
        if task not in self._read:
            self._read[task] = next(iter((self.file.documents(task) or {}).values()), {})
        return self._read[task]


def _damage(
    prepared: Prepared, rule: Choose, condition: Condition, target: str, results_of: Callable[[Unit], ResultsFile]
) -> float | None:
    suite, limit = prepared.limit_suite, rule.bound
    if limit is None or suite is None:
        return None
    if all(language == target for language in suite.languages.values()):
        return math.nan
    amplified = results_of(Unit("sweep", suite.name, condition.of_language(target)))
    unamplified = results_of(Unit("sweep", suite.name, Condition()))
    return damage_of(amplified, unamplified, suite.languages, limit[0], target, limit[1])


def _ran(suite: Suite, file: ResultsFile) -> dict[str, str | None]:
    return {name: language for name, language in suite.languages.items() if name in file.content["results"]}

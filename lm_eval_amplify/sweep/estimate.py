"""What a study will come to: its units and requests, and the time, from a short probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from lm_eval.api.instance import Instance

from lm_eval_amplify.sweep.plan import Planned, plan_sweep, plan_then
from lm_eval_amplify.sweep.prepare import Prepared, StudyModel
from lm_eval_amplify.sweep.suites import Suite

_LONG_ENOUGH = 1.0
"""Seconds of a probe; it begins with a few documents, and takes more of them until it takes that long."""
_FIRST = 4


class Work(NamedTuple):
    """What a suite comes to."""

    stage: str
    task: str
    units: int
    requests: int
    """In all units together; what the unamplified model is asked again and again counts once."""
    seconds: float | None
    """None: nothing runs."""


def estimate(prepared: Prepared) -> list[Work]:
    """Return what each suite comes to, those after the choice as if one is found for every language."""
    study = prepared.file.study
    parts = [prepared.part(suite) for suite in prepared.suites]
    planned = plan_sweep(parts, prepared.conditions, study.controls, prepared.languages)
    works = [_work("sweep", suite, planned, prepared) for suite in prepared.suites]
    if study.then is not None:
        example = dict.fromkeys(prepared.languages, prepared.conditions[0])
        later = plan_then([prepared.part(one) for one in prepared.then_suites], example, study.then.random)
        works += [_work("then", suite, later, prepared) for suite in prepared.then_suites]
    return works


def _work(stage: str, suite: Suite, planned: Sequence[Planned], prepared: Prepared) -> Work:
    own = [one for one in planned if one.unit.task == suite.name]
    requests = 0
    built = suite
    for one in own:
        if one.targets is not None:
            built = prepared.built_for(suite, one.targets[0])
        tasks = built.within(one.languages)["tasks"].values()
        instances = [instance for task in tasks for instance in task.instances]
        requests += sum(not _is_unamplified(instance) for instance in instances)
    requests += sum(_is_unamplified(instance) for task in built.tasks.values() for instance in task.instances or ())
    seconds = requests * _seconds_per_request(prepared.lm, built) if own else None
    return Work(stage, suite.name, len(own), requests, seconds)


def _is_unamplified(instance: Instance) -> bool:
    return bool(instance.request_type.endswith("_unamplified"))


def _seconds_per_request(lm: StudyModel, suite: Suite) -> float:
    """Of documents from all of the suite's tasks, on the unamplified model: amplification costs next to nothing."""
    documents: dict[tuple[str, int], list[Instance]] = {}
    for name, task in suite.tasks.items():
        for instance in task.instances:
            documents.setdefault((name, instance.doc_id), []).append(instance)
    order = list(documents.values())
    number = _FIRST
    while True:
        step = max(1, len(order) // number)
        chosen = [instance for document in order[::step][:number] for instance in document]
        _answer(lm, chosen[:1])  # whatever is set up at first
        start = time.perf_counter()
        _answer(lm, chosen)
        taken = time.perf_counter() - start
        if taken >= _LONG_ENOUGH or number >= len(order):
            return taken / len(chosen)
        number *= 2


def _answer(lm: StudyModel, instances: Sequence[Instance]) -> None:
    by_type: dict[str, list[Instance]] = {}
    for instance in instances:
        kind = instance.request_type.removesuffix("_amplified").removesuffix("_unamplified")
        by_type.setdefault(kind, []).append(instance)
    for kind, own in by_type.items():
        getattr(lm, kind)(own)

"""Which units a study comes to: pure, before anything is scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.store import Stage, Unit
from lm_eval_amplify.sweep.study import Amplify, Controls


class Part(NamedTuple):
    """What is to be known of a suite."""

    name: str
    languages: Sequence[str | None]
    """Of its tasks."""
    is_two_sided: bool
    amplify: Amplify
    has_controls: bool = True
    """Whether it runs with random neurons, too."""
    must_run_unamplified: bool = False
    """Whatever the controls say."""


class Planned(NamedTuple):
    """A unit, and which of the suite's tasks run in it."""

    unit: Unit
    languages: tuple[str | None, ...]
    """Of the tasks."""
    targets: tuple[str, ...] | None = None
    """Of tasks of both sides that are built for these alone; None: for all of the study's."""


def plan_sweep(
    parts: Sequence[Part], conditions: Sequence[Condition], controls: Controls, targets: Sequence[str]
) -> list[Planned]:
    """Return the units of the grid: by suite, each unamplified first.

    Tasks of both sides, and those that run in their own language, run once for a condition; the others once for each
    target language, the tasks of other languages, or of all.

    Args:
        parts: Suites.
        conditions: The grid.
        controls: Which random neurons run as well, and whether unamplified.
        targets: Target languages.
    """
    planned = []
    for part in parts:
        if (controls.unamplified or part.must_run_unamplified) and not part.is_two_sided:
            planned.append(_unamplified("sweep", part))
        for condition in conditions:
            seeds = controls.random if part.has_controls else ()
            for one in (condition, *map(condition.with_random_neurons, seeds)):
                planned += _of_condition("sweep", part, one, targets)
    return planned


def plan_then(parts: Sequence[Part], chosen: Mapping[str, Condition], seeds: Sequence[int]) -> list[Planned]:
    """Return the units of the tasks that run under what was chosen for each language.

    Args:
        parts: Suites.
        chosen: By target language.
        seeds: Of random neurons to run it with as well.
    """
    planned = []
    for part in parts:
        if chosen and not part.is_two_sided:
            planned.append(_unamplified("then", part))
        for target, condition in chosen.items():
            for one in (condition, *map(condition.with_random_neurons, seeds)):
                planned += _of_target("then", part, one, target)
    return planned


def _unamplified(stage: Stage, part: Part) -> Planned:
    return Planned(Unit(stage, part.name, Condition()), tuple(dict.fromkeys(part.languages)))


def _of_condition(stage: Stage, part: Part, condition: Condition, targets: Sequence[str]) -> Iterator[Planned]:
    if part.is_two_sided or part.amplify == "self":
        known = None if part.is_two_sided else {*targets, None}  # a base language need not have neurons
        languages = tuple(dict.fromkeys(one for one in part.languages if known is None or one in known))
        if languages:
            yield Planned(Unit(stage, part.name, condition), languages)
        return
    for target in targets:
        yield from _of_target(stage, part, condition, target)


def _of_target(stage: Stage, part: Part, condition: Condition, target: str) -> Iterator[Planned]:
    """Of a suite's tasks those in the target language, in others, or all; of tasks of both sides those in others."""
    languages = dict.fromkeys(part.languages)
    is_other = {language: language != target for language in languages}
    wanted = {"self": (False,), "cross": (True,), "matrix": (False, True)}[part.amplify]
    if part.is_two_sided:
        wanted = (True,)
    chosen = tuple(language for language in languages if is_other[language] in wanted)
    if chosen:
        targets = (target,) if part.is_two_sided else None
        yield Planned(Unit(stage, part.name, condition.of_language(target)), chosen, targets)

"""A study as a report reads it: what was chosen, what is shown of each language, and LSS as numbers of pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from lm_eval_amplify.results.files import ResultsFile
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.halves import Split, is_chosen_by, is_reported
from lm_eval_amplify.sweep.store import StoredStudy, Unit
from lm_eval_amplify.task_languages import OWN_LANGUAGE

_LSS = re.compile(r"lss_([a-z]{3}_[A-Z][a-z]{3})")


class Choice(NamedTuple):
    """What a study chose for a language."""

    condition: Condition | None
    """None: no condition stayed under the limit."""
    value: float
    """The metric on the documents chosen by; NaN where there is none, as all below."""
    held_out: float
    """On those reported."""
    random: Band | None
    """Of the same with random neurons, on those reported."""
    damage: float


class Band(NamedTuple):
    """Random controls: a number over their seeds."""

    mean: float
    low: float
    high: float
    seeds: int | None = None


class Shown(NamedTuple):
    """The condition that a report shows of a language."""

    condition: Condition
    """A treatment: without language and seed."""
    is_chosen: bool
    """Whether the study chose it; otherwise it is the best by LSS, whatever its damage."""


class Steered(NamedTuple):
    """Facts of one base and target language."""

    steered: float
    """How many of them moved towards the target."""
    facts: int
    """How many there are, without those that cannot be compared."""

    @property
    def share(self) -> float:
        """LSS of the pair; NaN without facts."""
        return self.steered / self.facts if self.facts else math.nan


@dataclass(frozen=True)
class LssTask:
    """The facts of one LSS task under every condition.

    Attributes:
        task: As the study names it.
        split: By which documents conditions were chosen; ``none``: by all, or by none of this task.
        is_chosen_by: Whether it is the task that conditions were chosen by.
        chosen: By (treatment, seed, base, target) the facts that conditions are chosen by.
        reported: Likewise those that are reported.
    """

    task: str
    split: Split
    is_chosen_by: bool
    chosen: Mapping[tuple[Condition, int | None, str, str], Steered]
    reported: Mapping[tuple[Condition, int | None, str, str], Steered]

    @cached_property
    def treatments(self) -> list[Condition]:
        """The treatments with languages' own neurons, in the study's order."""
        return list(dict.fromkeys(treatment for treatment, seed, _, _ in self.reported if seed is None))

    @cached_property
    def bases(self) -> list[str]:
        """The base languages."""
        return list(dict.fromkeys(base for _, _, base, _ in self.reported))

    @cached_property
    def targets(self) -> list[str]:
        """The target languages."""
        return list(dict.fromkeys(target for _, _, _, target in self.reported))

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of the random controls."""
        return sorted({seed for _, seed, _, _ in self.reported if seed is not None})

    def pair(self, treatment: Condition, base: str, target: str) -> float:
        """Return LSS(base -> target) on the facts that are reported; NaN where it was not measured."""
        found = self.reported.get((treatment, None, base, target))
        return found.share if found else math.nan

    def lss(self, treatment: Condition, target: str, *, seed: int | None = None, is_choosing: bool = False) -> float:
        """Return the mean over the base languages; NaN where it was not measured.

        Args:
            treatment: The treatment.
            target: Whose neurons.
            seed: Of a random control in their place.
            is_choosing: Over the facts that are chosen by, in place of those reported.
        """
        facts = self.chosen if is_choosing else self.reported
        shares = [facts[key].share for base in self.bases if (key := (treatment, seed, base, target)) in facts]
        return _mean(share for share in shares if not math.isnan(share))

    def band(self, treatment: Condition, target: str) -> Band | None:
        """Return the random controls on the facts that are reported; None where there are none."""
        values = [self.lss(treatment, target, seed=seed) for seed in self.seeds]
        known = [value for value in values if not math.isnan(value)]
        return Band(_mean(known), min(known), max(known), len(known)) if known else None


@dataclass(frozen=True)
class StudyData:
    """A study's folder with what its record says of the choice.

    Attributes:
        stored: The folder.
    """

    stored: StoredStudy

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of study.json."""
        return self.stored.record

    @property
    def languages(self) -> list[str]:
        """The target languages, as the study orders them."""
        return list(self.record["languages"])

    @property
    def choosing(self) -> Mapping[str, Any]:
        """What the record says of the choice, or the study's file where nothing is chosen yet; else empty."""
        return self.record.get("chosen") or (self.record.get("study") or {}).get("choose") or {}

    def leaves(self, task: str) -> Mapping[str, str | None]:
        """Return the tasks of a task as the study names it, each with its language if it has one.

        In the order of the target languages, so that a matrix has its diagonal where one looks for it.
        """
        found: Mapping[str, str | None] = self.record["tasks"].get(task, {}).get("leaves") or {}
        places = {language: place for place, language in enumerate(self.languages)}
        order = sorted(found, key=lambda leaf: places.get(found[leaf] or "", len(places)))
        return {leaf: found[leaf] for leaf in order}

    def is_two_sided(self, task: str) -> bool:
        """Return whether a task compares the amplified with the unamplified model by itself."""
        return bool(self.record["tasks"].get(task, {}).get("two_sided"))

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """What was chosen, by language."""
        return {language: _choice(entry) for language, entry in (self.choosing.get("languages") or {}).items()}

    @cached_property
    def lss_tasks(self) -> list[LssTask]:
        """The LSS tasks, first the one that conditions were chosen by."""
        by_task: dict[str, list[tuple[Unit, ResultsFile]]] = {}
        for unit, file in self.stored.units.items():
            if self.is_two_sided(unit.task) and any(map(_LSS.fullmatch, _metrics(file, self.leaves(unit.task)))):
                by_task.setdefault(unit.task, []).append((unit, file))
        # A task of both stages has the same facts in both: they count once.
        own = {task: [one for one in units if one[0].stage == units[0][0].stage] for task, units in by_task.items()}
        tasks = [self._lss_task(task, units) for task, units in own.items()]
        return sorted(tasks, key=lambda one: not one.is_chosen_by)

    @cached_property
    def shown(self) -> dict[str, Shown]:
        """By language the condition chosen, or else the best by LSS; without either a language is left out."""
        found = {}
        for language in self.languages:
            choice = self.choices.get(language)
            if choice is not None and choice.condition is not None:
                found[language] = Shown(choice.condition.treatment, True)
                continue
            best = self._best(language)
            if best is not None:
                found[language] = Shown(best, False)
        return found

    def unit(self, task: str, language: str) -> tuple[Unit, ResultsFile] | None:
        """Return the unit of a task that shows a language's neurons amplified, under the condition that is shown of it.

        Of the tasks that came after the choice, else of the sweep.
        """
        shown = self.shown.get(language)
        for stage in ("then", "sweep"):
            for named in (language, OWN_LANGUAGE):
                for unit, file in self.stored.units.items():
                    condition = unit.condition
                    is_it = unit.task == task and unit.stage == stage and condition.language == named
                    if is_it and shown and condition == shown.condition.of_language(named):
                        return unit, file
        return None

    def unamplified(self, task: str) -> ResultsFile | None:
        """Return a task's results of the unamplified model."""
        found = [f for u, f in self.stored.units.items() if u.task == task and not u.condition.is_amplified]
        return found[-1] if found else None

    def _best(self, language: str) -> Condition | None:
        """By the facts that are chosen by: those reported must not choose what is reported of them."""
        for task in self.lss_tasks:
            values = {one: task.lss(one, language, is_choosing=True) for one in task.treatments}
            known = {one: value for one, value in values.items() if not math.isnan(value)}
            if known:
                return max(known, key=lambda one: known[one])
        return None

    def _lss_task(self, task: str, units: list[tuple[Unit, ResultsFile]]) -> LssTask:
        is_chosen_by_it = task == self.choosing.get("task")
        split: Split = "half" if is_chosen_by_it and self.choosing.get("split") == "half" else "none"
        halves: tuple[dict[Any, Steered], dict[Any, Steered]] = ({}, {})
        for unit, file in units:
            condition = unit.condition
            for base, target, number, value in _facts(file, self.leaves(task)):
                if condition.language not in (OWN_LANGUAGE, target) or math.isnan(value):
                    continue
                key = (condition.treatment, condition.seed, base, target)
                for half, is_in in zip(halves, (is_chosen_by, is_reported), strict=True):
                    if is_in(number, split):
                        before = half.get(key, Steered(0.0, 0))
                        half[key] = Steered(before.steered + value, before.facts + 1)
        return LssTask(task, split, is_chosen_by_it, *halves)


def _facts(file: ResultsFile, leaves: Mapping[str, str | None]) -> Iterator[tuple[str, str, int, float]]:
    """Base, target, number of the document, 1 if it moved towards the target, 0 if not, NaN where not comparable."""
    for leaf, base in leaves.items():
        for documents in (file.documents(leaf) or {}).values():
            for number, document in documents.items():
                for metric, value in document.values.items():
                    match = _LSS.fullmatch(metric)
                    if match:
                        yield base or "", match[1], number, float(value)


def _metrics(file: ResultsFile, leaves: Iterable[str]) -> Iterator[str]:
    for leaf in leaves:
        yield from (key.partition(",")[0] for key in file.content["results"].get(leaf) or {})


def _choice(entry: Mapping[str, Any]) -> Choice:
    condition, random = entry.get("condition"), entry.get("random")
    return Choice(
        None if condition is None else Condition.of_dict(condition),
        _number(entry.get("value")),
        _number(entry.get("held_out")),
        None if random is None else Band(_number(random["mean"]), _number(random["min"]), _number(random["max"])),
        _number(entry.get("damage")),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan

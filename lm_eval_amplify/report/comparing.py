"""Two sets of results compared: which metrics got better or worse, beyond a tolerance and beyond chance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from lm_eval_amplify.report.tolerance import Tolerance
from lm_eval_amplify.results.entrants import settings_of
from lm_eval_amplify.results.files import find_results, read_results
from lm_eval_amplify.results.pairing import Run, paired_parts
from lm_eval_amplify.results.rows import Row, rows_of
from lm_eval_amplify.results.stats import Difference, holm, paired_difference, unpaired_difference

Verdict: TypeAlias = Literal["regression", "better", "changed", "unclear", "same", "not comparable", "new"]
Test: TypeAlias = Literal["auto", "paired", "unpaired"]
FailOn: TypeAlias = Literal["regression", "change"]


@dataclass(frozen=True)
class Rules:
    """What counts as a difference."""

    fail_on: FailOn = "regression"
    """``regression``: worse, beyond the tolerance and beyond chance; ``change``: any difference beyond the tolerance,
    also one that chance can make, for runs that should give the same numbers."""
    tolerance: Tolerance = Tolerance()  # noqa: RUF009  # immutable
    alpha: float = 0.05
    """How often a comparison in which nothing changed may find a difference; see ``correct``."""
    correct: bool = True
    """Whether ``alpha`` is for the whole comparison, by Holm's correction, instead of for each metric."""
    test: Test = "auto"
    """``auto``: by document where both sides have samples, else by standard errors; or the one of them, always."""
    seed: int = 0
    """Of the bootstrap."""


class Compared(NamedTuple):
    """One metric in the old and the new results; one of them is None where only one side has it."""

    old: Row | None
    new: Row | None
    difference: Difference | None
    """None where nothing tells chance from a difference."""
    p: float | None
    """Adjusted for the number of comparisons where that was asked for."""
    verdict: Verdict
    is_failure: bool
    note: str
    """Why it is not comparable, or what to know of it."""

    @property
    def row(self) -> Row:
        """The new one, or else the old one."""
        row = self.new or self.old
        assert row is not None  # noqa: S101  # one of them is there
        return row


class Comparison(NamedTuple):
    """All of it."""

    compared: list[Compared]
    settings: dict[str, tuple[str, str]]
    """What differs between the runs that were compared, old and new."""
    rules: Rules
    notes: list[str]

    @property
    def exit_status(self) -> int:
        """1: something failed; 3: something could not be compared, or nothing was; else 0."""
        if any(one.is_failure for one in self.compared):
            return 1
        is_whole = any(one.old and one.new for one in self.compared)
        return 0 if is_whole and all(one.verdict != "not comparable" for one in self.compared) else 3


def compare(
    old: str | Path,
    new: str | Path,
    rules: Rules | None = None,
    *,
    tasks: Sequence[str] = (),
    metrics: Sequence[str] = (),
) -> Comparison:
    """Compare results.

    Args:
        old: File of results, or folder with some.
        new: Likewise.
        rules: What counts as a difference.
        tasks: Patterns (``amplify_lss*``) of the tasks and groups to compare; by default all.
        metrics: Patterns of metrics, likewise.

    Raises:
        ResultsError: Results are missing or damaged; scipy is not installed.
    """
    rules = rules or Rules()
    notes: list[str] = []
    sides = [_newest(_runs(path, tasks, metrics), path, notes) for path in (old, new)]
    compared: list[Compared] = []
    settings: dict[str, tuple[str, str]] = {}
    for mine, theirs in _matched(*sides):
        compared.append(_compare(mine, theirs, rules))
        if mine and theirs:
            settings |= _differing(mine[0], theirs[0])
    if not any(one.old and one.new for one in compared):
        has = [", ".join(dict.fromkeys(key[0] for key in side)) or "nothing that was asked for" for side in sides]
        notes.append(f"nothing to compare: {old} has {has[0]}; {new} has {has[1]}")
    return Comparison(_judge(compared, rules), settings, rules, notes)


_Found: TypeAlias = "tuple[Run, Row]"
_Side: TypeAlias = "dict[tuple[str, str, str], dict[tuple[str, str], _Found]]"


def _runs(path: str | Path, tasks: Sequence[str], metrics: Sequence[str]) -> Iterable[_Found]:
    for file in find_results([path]):
        results = read_results(file)
        run = Run(results, rows_of(results))
        for row in run.rows:
            if _is_asked(row.task, tasks) and (_is_asked(row.metric, metrics) or _is_asked(row.name, metrics)):
                yield run, row


def _newest(found: Iterable[_Found], path: str | Path, notes: list[str]) -> _Side:
    """By task, metric and filter, then by model and condition: of runs of the same, the newest."""
    side: _Side = {}
    older: dict[str, None] = {}
    for run, row in sorted(found, key=lambda one: one[1].date):
        own = side.setdefault(row.key, {})
        identity = (row.model, row.condition)
        if identity in own and own[identity][0] is not run:
            older[own[identity][1].file] = None
        own[identity] = (run, row)
    notes += [f"{path}: {file} is of the same as newer results, which count" for file in older]
    return side


def _matched(old: _Side, new: _Side) -> Iterable[tuple[_Found | None, _Found | None]]:
    """A metric that each side has of one model in one condition is compared whatever these are; else by both."""
    for key in {**old, **new}:
        mine, theirs = old.get(key, {}), new.get(key, {})
        if len(mine) == len(theirs) == 1:
            yield next(iter(mine.values())), next(iter(theirs.values()))
        else:
            yield from ((mine.get(one), theirs.get(one)) for one in {**mine, **theirs})


def _compare(old: _Found | None, new: _Found | None, rules: Rules) -> Compared:
    """Without the verdict where that depends on the other comparisons."""
    if old is None or new is None:
        row = (old or new or (None, None))[1]
        if old is None:
            return Compared(None, row, None, None, "new", False, "not in the old results")
        return Compared(row, None, None, None, "not comparable", False, "not in the new results")
    mine, theirs = old[1], new[1]
    undecided = Compared(mine, theirs, None, None, "same", False, "")
    if mine.protocol != theirs.protocol:
        note = f"run differently: {mine.protocol}; {theirs.protocol}"
        return undecided._replace(verdict="not comparable", note=note)
    if not math.isfinite(mine.value):
        is_same = mine.value == theirs.value or (math.isnan(mine.value) and math.isnan(theirs.value))
        return undecided if is_same else undecided._replace(verdict="not comparable", note="old is not a finite number")
    if not math.isfinite(theirs.value):
        return undecided._replace(verdict="regression", is_failure=True, note="new is not a finite number")
    difference, note = _difference(old, new, rules)
    if rules.test == "paired" and (difference is None or difference.method == "stderr"):
        return undecided._replace(verdict="not comparable", note=f"a paired test was asked for: {note}")
    return undecided._replace(difference=difference, note=note)


def _difference(old: _Found, new: _Found, rules: Rules) -> tuple[Difference | None, str]:
    confidence = 1 - rules.alpha
    note = ""
    if rules.test != "unpaired":
        parts = paired_parts(old, new)
        if not isinstance(parts, str):
            difference = paired_difference(parts, confidence=confidence, seed=rules.seed)
            if difference is not None:
                return difference, ""
            parts = "fewer than two documents"
        note = parts
    mine, theirs = old[1], new[1]
    if rules.test == "paired" or mine.stderr is None or theirs.stderr is None:
        return None, note or "no standard error"
    return unpaired_difference(mine.value, mine.stderr, theirs.value, theirs.stderr, confidence=confidence), note


def _judge(compared: list[Compared], rules: Rules) -> list[Compared]:
    """Give verdicts; the tests of all metrics with a direction count as one family."""
    family = [i for i, one in enumerate(compared) if one.difference is not None and _direction(one) is not None]
    found = [compared[i].difference.p for i in family]  # type: ignore[union-attr]
    adjusted = dict(zip(family, holm(found) if rules.correct else found, strict=True))
    judged = []
    for i, one in enumerate(compared):
        if one.verdict != "same" or one.old is None or one.new is None or not math.isfinite(one.old.value):
            judged.append(one)
            continue
        p = adjusted.get(i, one.difference.p if one.difference else None)
        judged.append(_decide(one, one.old, one.new, p, rules))
    return judged


def _decide(one: Compared, old: Row, new: Row, p: float | None, rules: Rules) -> Compared:
    change = new.value - old.value
    if not rules.tolerance.is_exceeded(old, change):
        return one._replace(p=p)
    if p is None:
        is_worse = change < 0 if new.higher_is_better else change > 0
        if rules.fail_on == "change":
            return one._replace(verdict="changed", is_failure=True)
        if new.higher_is_better is None:
            return one._replace(verdict="unclear")
        note = f"{'worse' if is_worse else 'better'}, and nothing tells chance from a change: {one.note}"
        return one._replace(verdict="not comparable" if is_worse else "unclear", note=note)
    verdict: Verdict = "changed" if rules.fail_on == "change" else "unclear"
    if p < rules.alpha:
        direction = _direction(one)
        verdict = "changed" if direction is None else "better" if (change > 0) == direction else "regression"
    return one._replace(p=p, verdict=verdict, is_failure=rules.fail_on == "change" or verdict == "regression")


def _direction(one: Compared) -> bool | None:
    """Of the metric, where both sides agree."""
    sides = {row.higher_is_better for row in (one.old, one.new) if row is not None}
    return sides.pop() if len(sides) == 1 else None


def _differing(old: Run, new: Run) -> dict[str, tuple[str, str]]:
    mine, theirs = settings_of(old.file.content), settings_of(new.file.content)
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    return {name: (mine.get(name, ""), theirs.get(name, "")) for name in names}


def _is_asked(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

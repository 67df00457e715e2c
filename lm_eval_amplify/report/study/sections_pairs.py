"""Sections on the Language Steering Shift by base and target language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.report.study.data import LssTask, StudyData
from lm_eval_amplify.report.study.drawing import Names, full_name
from lm_eval_amplify.report.study.figures_matrix import Matrix, matrix_figure
from lm_eval_amplify.report.study.parts import Absent, Numbers, Section, numbers, picture, three, values, words
from lm_eval_amplify.report.study.sections_steering import half_in_words, of_task, suffix_of, targets_of
from lm_eval_amplify.report.study.series import series_of
from lm_eval_amplify.report.tables import Table
from lm_eval_amplify.sweep.conditions import Condition

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSV = ("base", "target", "condition", "is_chosen", "lss")


class _Pairs(NamedTuple):
    """One heatmap."""

    label: str
    """Of its condition, where all targets have one that was not chosen; else empty."""
    bases: Sequence[str]
    conditions: Mapping[str, Condition]
    """By target."""
    starred: frozenset[str]
    """Targets whose condition was not chosen, where others' were."""
    lss: NDArray[np.float64]
    """``[bases, targets]``."""


def pairs_section(study: StudyData, task: LssTask) -> Section | Absent:
    """Return LSS of each base and target language, under the conditions that are shown of the targets."""
    name = f"lss-pairs{suffix_of(study, task)}"
    title = f"LSS by base and target language{of_task(study, task)}"
    targets = [language for language in targets_of(study, task) if language in study.shown]
    if study.choices:
        conditions = {target: study.shown[target].condition for target in targets}
        starred = frozenset(target for target in targets if not study.shown[target].is_chosen)
        found = [_pairs(task, "", conditions, starred)]
        note = f"Each target language under its chosen condition.{starred_in_words(study, starred)}"
    else:
        best = _best_of_each(task, targets)
        found = [_pairs(task, one.label, dict.fromkeys(targets, one), frozenset()) for one in best]
        note = "Nothing was chosen: of each kind of treatment the factor or layer with the highest mean LSS is shown."
    found = [pairs for pairs in found if np.isfinite(pairs.lss).any()]
    if not found:
        return Absent(title, "the conditions that are shown have no facts on the half that is reported")
    pictures = []
    for number, pairs in enumerate(found):
        own = name if len(found) == 1 else f"{name}-{number}"
        alt = f"LSS by base and target language{f', {pairs.label}' if pairs.label else ''}"
        pictures.append(picture(own, alt, f"{alt}.", partial(_figure, pairs), [*pairs.bases, *pairs.conditions]))
    is_chosen = bool(study.choices)
    return Section(name, title, [note, half_in_words(task)], pictures, [_table(name, title, found, is_chosen)])


def starred_in_words(study: StudyData, starred: frozenset[str]) -> str:
    """Return under which conditions languages are shown that nothing was chosen for; nothing without such."""
    if not starred:
        return ""
    own = [language for language in study.languages if language in starred]
    listed = "; ".join(f"{full_name(one)}: {study.shown[one].condition.label}" for one in own)
    return f" Where nothing was chosen (*), the best by LSS, whatever its damage: {listed}."


def _pairs(task: LssTask, label: str, conditions: Mapping[str, Condition], starred: frozenset[str]) -> _Pairs:
    lss = [[task.pair(condition, base, target) for target, condition in conditions.items()] for base in task.bases]
    return _Pairs(label, task.bases, conditions, starred, np.array(lss))


def _figure(pairs: _Pairs, names: Names) -> Figure:
    rows = [names(base) for base in pairs.bases]
    columns = [names(target) + (" *" if target in pairs.starred else "") for target in pairs.conditions]
    return matrix_figure(Matrix(pairs.lss, rows, columns, "prompt in", "neurons of", "LSS", highest=1.0))


def _table(name: str, title: str, found: Sequence[_Pairs], is_chosen: bool) -> Numbers:
    """As a matrix where there is one, else a row for each pair."""
    full: list[list[object]] = []
    rows: list[list[str]] = []
    for pairs in found:
        for base, line in zip(pairs.bases, pairs.lss.tolist(), strict=True):
            for (target, condition), lss in zip(pairs.conditions.items(), line, strict=True):
                if not math.isnan(lss):
                    marked = int(is_chosen and target not in pairs.starred)
                    full.append([base, target, condition.label, marked, lss])
                    rows.append([full_name(base), full_name(target), condition.label, three(lss)])
    columns = [*words("prompt in", "neurons of", "condition"), *values("LSS")]
    if len(found) == 1:
        columns = [*words("prompt in"), *values(*found[0].conditions)]
        lines = zip(found[0].bases, found[0].lss.tolist(), strict=True)
        rows = [[full_name(base), *map(three, line)] for base, line in lines]
    return numbers(name, Table(title, "", columns, rows), _CSV, full)


def _best_of_each(task: LssTask, targets: Sequence[str]) -> list[Condition]:
    """By the facts that conditions are, or would be, chosen by."""
    found = []
    for one in (*series_of(task.treatments, "factor"), *series_of(task.treatments, "layer")):
        means = {}
        for _, treatment in one.treatments:
            known = [
                value for target in targets if not math.isnan(value := task.lss(treatment, target, is_choosing=True))
            ]
            if known:
                means[treatment] = math.fsum(known) / len(known)
        if means:
            found.append(max(means, key=lambda treatment: means[treatment]))
    return found

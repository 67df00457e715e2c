"""Sections on the tasks that came after the choice: what amplification does to each language's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lm_eval_amplify.report.formatting import show_p
from lm_eval_amplify.report.study.changes import SIDES, Change, changes_of
from lm_eval_amplify.report.study.data import StudyData
from lm_eval_amplify.report.study.drawing import Names, full_name
from lm_eval_amplify.report.study.figures_bars import Differences, Interval, differences_figure
from lm_eval_amplify.report.study.figures_matrix import Matrix, matrix_figure
from lm_eval_amplify.report.study.parts import (
    Absent,
    Numbers,
    Picture,
    Section,
    counted,
    numbers,
    picture,
    three,
    values,
    words,
)
from lm_eval_amplify.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSV = (
    *("stage", "task", "leaf", "relation", "task_language", "neurons_of", "condition", "seed", "metric", "tasks"),
    *("documents", "unamplified", "amplified", "difference", "low", "high", "p", "holm_p", "method"),
)
_METHODS = {"mcnemar": "McNemar", "paired": "paired t", "stderr": "standard errors"}


def change_sections(study: StudyData) -> list[Section | Absent]:
    """Return a section for each task that amplification may help or harm.

    Raises:
        ResultsError: scipy is not installed, or samples are damaged.
    """
    changes = changes_of(study)
    tasks = dict.fromkeys(change.task for change in changes.single)
    if not tasks:
        return [Absent("Accuracy", "no task but those above was run both amplified and unamplified")]
    tested = sum(change.adjusted_p is not None for change in changes.single)
    tested_means = sum(change.adjusted_p is not None for change in changes.means)
    sections: list[Section | Absent] = []
    for task in tasks:
        single = [change for change in changes.single if change.task == task]
        means = [change for change in changes.means if change.task == task]
        sections.append(_section(task, single, means, (tested, tested_means)))
    return sections


def _section(task: str, single: Sequence[Change], means: Sequence[Change], tested: tuple[int, int]) -> Section:
    is_share = all(change.is_share for change in single)
    name = f"change-{task}"
    paragraphs = [
        (
            f"Amplified minus unamplified, {single[0].metric}{', in percentage points' if is_share else ''}, paired by "
            "document. Intervals are those of 10,000 bootstrap resamples of the documents, 95 %, not adjusted."
        ),
        "Self-language: the neurons of the task's own language are amplified; cross-language: those of another one.",
        (
            "p by McNemar's exact test where a task's documents are right or wrong, else, and for means over tasks, by "
            f"a paired t test. Holm's correction is over {counted(tested[0], 'test')} of single tasks and over "
            f"{counted(tested[1], 'test')} of means: all of this report but random controls."
        ),
    ]
    pictures = [_rows_picture(name, task, means, is_share)] if _has_one_condition(means) else []
    pictures += _matrix_pictures(name, task, single, is_share)
    tables = [_table(name, f"{task}: each task", single, is_share)]
    if any(change.tasks > 1 for change in means):
        tables.insert(0, _table(f"{name}-means", f"{task}: means over tasks", means, is_share))
    return Section(name, f"{task}: what amplification changes", paragraphs, pictures, tables)


def _has_one_condition(means: Sequence[Change]) -> bool:
    """Whether each language's neurons are amplified under one condition, not a grid of them."""
    own = [(change.target, change.relation) for change in means if change.target and change.seed is None]
    return 0 < len(own) == len(set(own))


def _rows_picture(name: str, task: str, means: Sequence[Change], is_share: bool) -> Picture:
    scale = 100 if is_share else 1
    rows: dict[str, tuple[dict[str, Interval], dict[str, list[float]]]] = {}
    for change in means:
        found, kind = change.difference, SIDES[change.relation]
        if not change.target or found is None:
            continue
        own, random = rows.setdefault(change.target, ({}, {}))
        if change.seed is None:
            own[kind] = Interval(scale * found.difference, scale * found.low, scale * found.high)
        else:
            random.setdefault(kind, []).append(scale * found.difference)
    kinds = [kind for kind in SIDES.values() if any(kind in own for own, _ in rows.values())]
    unit = f"change of {means[0].metric}, {'percentage points' if is_share else 'amplified minus unamplified'}"

    def make(names: Names) -> Figure:
        shown = [Differences(names(target), *own) for target, own in rows.items()]
        return differences_figure(shown, kinds, unit)

    caption = f"{task}: change by whose neurons are amplified, mean over the tasks, with 95 % bootstrap intervals."
    return picture(name, f"Change of {task} by language amplified", caption, make, rows)


def _matrix_pictures(name: str, task: str, single: Sequence[Change], is_share: bool) -> list[Picture]:
    """Rows are the languages amplified; of a grid of conditions they are the treatments, self-language."""
    own = [change for change in single if change.seed is None and change.task_language]
    pairs = [(change.target, change.leaf) for change in own]
    is_grid = len(pairs) != len(set(pairs))
    if is_grid:
        own = [change for change in own if change.relation == "self"]
    rows = list(dict.fromkeys(change.condition.label if is_grid else change.target for change in own))
    columns = list(dict.fromkeys(change.task_language for change in own if change.task_language))
    if len(rows) < 2 or len(columns) < 2:
        return []
    sums = np.zeros((len(rows), len(columns), 2))
    for change in own:
        row = rows.index(change.condition.label if is_grid else change.target)
        sums[row, columns.index(change.task_language or "")] += (change.amplified - change.unamplified, 1)
    with np.errstate(invalid="ignore"):
        changes = (100 if is_share else 1) * sums[..., 0] / sums[..., 1]
    outlined = [(i, j) for i, row in enumerate(rows) for j, column in enumerate(columns) if row == column]
    what = "treatment" if is_grid else "neurons of"

    def make(names: Names) -> Figure:
        called = rows if is_grid else [names(row) for row in rows]
        unit = f"change of {own[0].metric}{', percentage points' if is_share else ''}"
        shown = Matrix(changes, called, [names(column) for column in columns], what, "task in", unit)
        return matrix_figure(replace(shown, format="+.1f" if is_share else "+.3f", is_change=True, outlined=outlined))

    alt = f"Change of {task} by {'treatment' if is_grid else 'language amplified'} and language of the task"
    caption = f"{alt}, self-language." if is_grid else f"{alt}; a frame marks self-language."
    return [picture(f"{name}-matrix", alt, caption, make, [*columns, *(() if is_grid else rows)])]


def _table(name: str, title: str, changes: Sequence[Change], is_share: bool) -> Numbers:
    columns = [*words("neurons of", "condition", "task in", "")]
    columns += values(*(f"{side}{', %' if is_share else ''}" for side in ("unamplified", "amplified")))
    columns += [*values("change", "95 % interval", "p", "Holm"), *words("test")]
    rows = [_cells(change, is_share) for change in changes]
    return numbers(name, Table(title, "", columns, rows), _CSV, [_full(change) for change in changes])


def _cells(change: Change, is_share: bool) -> list[str]:
    def shown(value: float, *, sign: bool = False) -> str:
        return f"{100 * value:{'+' if sign else ''}.1f}" if is_share else three(value, sign=sign)

    found = change.difference
    neurons = full_name(change.target) if change.target else "each its own"
    if change.seed is not None:
        neurons += f", random {change.seed}"
    language = full_name(change.task_language) if change.task_language else ""
    return [
        neurons,
        change.condition.label,
        language if change.leaf else counted(change.tasks, "task"),
        SIDES[change.relation].removesuffix("-language"),
        shown(change.unamplified),
        shown(change.amplified),
        shown(change.amplified - change.unamplified, sign=True),
        f"{shown(found.low, sign=True)} to {shown(found.high, sign=True)}" if found else "",
        show_p(found.p if found else None),
        show_p(change.adjusted_p),
        _METHODS[found.method] if found else "",
    ]


def _full(change: Change) -> list[object]:
    found = change.difference
    ends = (found.difference, found.low, found.high, found.p) if found else (None,) * 4
    return [
        *(change.stage, change.task, change.leaf, change.relation, change.task_language, change.target),
        *(change.condition.label, change.seed, change.metric, change.tasks, found.documents if found else None),
        *(change.unamplified, change.amplified, *ends, change.adjusted_p, found.method if found else None),
    ]

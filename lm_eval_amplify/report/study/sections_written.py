"""Sections on the language that the model writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from lm_eval_amplify.report.study.data import StudyData
from lm_eval_amplify.report.study.drawing import Names, full_name
from lm_eval_amplify.report.study.figures_bars import Shares, shares_figure
from lm_eval_amplify.report.study.parts import Absent, Section, counted, numbers, picture, values, words
from lm_eval_amplify.report.study.shares import IN_WORDS, PARTS, SIDES, Written, shares, written_of
from lm_eval_amplify.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSV = ("target", "side", "seed", "base", "condition", *(f"{part}_texts" for part in PARTS))


def written_sections(study: StudyData) -> list[Section | Absent]:
    """Return a section for each task that has the model write.

    Raises:
        ResultsError: Samples are damaged.
    """
    title = "The language that is written"
    by_task: dict[str, list[Written]] = {}
    for one in written_of(study):
        by_task.setdefault(one.task, []).append(one)
    if not by_task:
        return [Absent(title, "no task has the model write under a condition that is shown")]
    sections: list[Section | Absent] = []
    for number, (task, own) in enumerate(by_task.items()):
        of, suffix = (f", {task}", f"-{task}") if number else ("", "")
        sections.append(_section(task, own, f"written{suffix}", f"{title}{of}"))
    return sections


def _section(task: str, written: Sequence[Written], name: str, title: str) -> Section:
    bars: list[tuple[str, str, list[float]]] = []
    rows = []
    for target in dict.fromkeys(one.target for one in written):
        for side in SIDES:
            own = [one for one in written if (one.target, one.side) == (target, side)]
            if not own:
                continue
            percent = list(shares(own).values())
            bars.append((target, side, percent))
            texts = str(sum(sum(one.counts.values()) for one in own))
            rows.append([full_name(target), side, own[0].condition, texts, *(f"{value:.1f}" for value in percent)])
    full = [
        [one.target, one.side, one.seed, one.base, one.condition, *(one.counts.get(part, 0) for part in PARTS)]
        for one in written
    ]
    columns = [*words("neurons of", "model", "condition"), *values("texts", *(f"{part}, %" for part in PARTS))]
    table = numbers(name, Table(title, "", columns, rows), _CSV, full)
    bases = counted(len({one.base for one in written}), "base language")
    paragraph = (
        f"{task}: what the model writes after beginnings in {bases}, by a language identifier: percent of texts in the "
        "language whose neurons are amplified, in the prompt's, in another one, and in none (too short, or repeating "
        "itself)."
    )
    caption = "Languages of what is written, amplified and unamplified, in percent of the texts."
    alt = "Languages of what the model writes"
    drawn = picture(name, alt, caption, partial(_figure, bars), [bar[0] for bar in bars])
    return Section(name, title, [paragraph], [drawn], [table], is_beside=True)


def _figure(bars: Sequence[tuple[str, str, list[float]]], names: Names) -> Figure:
    drawn = [Shares(names(target), side, percent) for target, side, percent in bars]
    return shares_figure(drawn, [IN_WORDS[part] for part in PARTS])

"""Sections on the Language Steering Shift by factor and by layer."""

from __future__ import annotations

from functools import partial

from lm_eval_amplify.report.study.data import LssTask, StudyData
from lm_eval_amplify.report.study.drawing import draw, draw_inline, full_name
from lm_eval_amplify.report.study.figures_lss import Curves, Panel, all_panels, legend_figure, panel_figure
from lm_eval_amplify.report.study.parts import Numbers, Picture, Section, counted, numbers, three, values, words
from lm_eval_amplify.report.study.series import Axis, Series, points_of, series_of
from lm_eval_amplify.report.tables import Table

WHAT = (
    "LSS (Language Steering Shift) is the share of facts for which amplifying a language's neurons makes the answer in "
    "that language likelier against the answer in the prompt's language. Compare it with random neurons, not with 0.5."
)
_RANDOM = ("random_mean", "random_min", "random_max", "random_seeds")


def curve_section(study: StudyData, task: LssTask, axis: Axis) -> Section | None:
    """Return LSS by factor or by layer, a panel for each language; None where nothing varies so."""
    series = series_of(task.treatments, axis)
    panels = [_panel(study, task, series, language) for language in targets_of(study, task)]
    panels = [panel for panel in panels if panel.series]
    if not panels:
        return None
    places = sorted({x for one in series for x, _ in one.treatments})
    labels = [one.label for one in series if any(one.label in panel.series for panel in panels)]
    curves = Curves(panels, axis, places, labels)
    name, title = f"lss-by-{axis}{suffix_of(study, task)}", f"LSS by {axis}"
    is_first = axis == "factor" or not series_of(task.treatments, "factor")
    paragraphs = [
        *([WHAT] if is_first else []),
        f"{task.task}, mean over {counted(len(task.bases), 'base language')}. {half_in_words(task)}",
        _controls_in_words(task),
    ]
    table = _table(name, title, curves)
    return Section(name, f"{title}{of_task(study, task)}", paragraphs, [_picture(name, title, curves)], [table])


def targets_of(study: StudyData, task: LssTask) -> list[str]:
    """Return the study's languages that are targets of a task."""
    return [language for language in study.languages if language in task.targets]


def half_in_words(task: LssTask) -> str:
    """Return which facts numbers are over."""
    if task.split == "half":
        return "Shown on the half of the facts that conditions were not chosen by."
    if task.is_chosen_by:
        return "Shown on all facts, which conditions were chosen by as well."
    return "Shown on all facts."


def suffix_of(study: StudyData, task: LssTask) -> str:
    """Return what tells names of an LSS task's parts from those of the first one."""
    return "" if task is study.lss_tasks[0] else f"-{task.task}"


def of_task(study: StudyData, task: LssTask) -> str:
    """Return the same for titles."""
    return "" if task is study.lss_tasks[0] else f", {task.task}"


def _panel(study: StudyData, task: LssTask, series: list[Series], language: str) -> Panel:
    points = {one.label: own for one in series if (own := points_of(task, one, language))}
    choice = study.choices.get(language) if task.is_chosen_by else None
    return Panel(language, points, choice.condition.treatment if choice and choice.condition else None)


def _picture(name: str, title: str, curves: Curves) -> Picture:
    inline = [draw_inline(partial(legend_figure, curves), [], name=f"{name}-legend", title="Legend")]
    for panel in curves.panels:
        make = partial(panel_figure, curves, panel)
        alt = f"{title}: {full_name(panel.language)}"
        inline.append(draw_inline(make, [panel.language], name=f"{name}-{panel.language}", title=alt))
    drawn = draw(partial(all_panels, curves), [panel.language for panel in curves.panels])
    return Picture(name, f"{title}, a panel for each target language.", drawn, inline)


def _table(name: str, title: str, curves: Curves) -> Numbers:
    rows: list[list[str]] = []
    full: list[list[object]] = []
    for panel in curves.panels:
        for label, points in panel.series.items():
            for x, treatment, lss, random in points:
                band = [random.mean, random.low, random.high] if random else [None] * 3
                rows.append([full_name(panel.language), label, f"{x:g}", three(lss), *map(three, band)])
                seeds = random.seeds if random else None
                is_chosen = int(treatment == panel.chosen)
                full.append([panel.language, label, x, treatment.label, lss, *band, seeds, is_chosen])
    columns = [*words("language", "treatment"), *values(curves.axis, "LSS", "random, mean", "least", "greatest")]
    names = ("language", "treatment", curves.axis, "condition", "lss", *_RANDOM, "is_chosen")
    return numbers(name, Table(title, "", columns, rows), names, full)


def _controls_in_words(task: LssTask) -> str:
    if not task.seeds:
        return "The study has no random controls, so there is nothing to compare with."
    if len(task.seeds) == 1:
        return "Faint: a random control, as many random neurons in the same layers."
    return f"Faint: the range of {len(task.seeds)} random controls, as many random neurons in the same layers."

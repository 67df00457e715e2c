"""Figures of LSS: by factor or layer with the random controls, a panel for each language, and what was chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_amplify.report.study.data import Choice
from lm_eval_amplify.report.study.drawing import (
    ACCENT,
    DASHES,
    GREY,
    INK,
    MARKERS,
    PAPER,
    ROWS,
    SERIES,
    Names,
    figure,
    legend_line,
)
from lm_eval_amplify.report.study.series import Axis, Point
from lm_eval_amplify.sweep.conditions import Condition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = (3.4, 2.3)  # inches
_IN_A_ROW = 3
_MOST_TICKS = 9
_RING: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": ACCENT, "markeredgewidth": 1.6}


class Panel(NamedTuple):
    """LSS of one target language."""

    language: str
    series: Mapping[str, Sequence[Point]]
    """By label."""
    chosen: Condition | None
    """The treatment that is marked."""


@dataclass(frozen=True)
class Curves:
    """Panels of the same axes.

    Attributes:
        panels: One for each target language.
        axis: What is along them.
        places: All values along it, sorted.
        labels: Of all series, in the order of their colours.
    """

    panels: Sequence[Panel]
    axis: Axis
    places: Sequence[float]
    labels: Sequence[str]

    @property
    def has_random(self) -> bool:
        """Whether there are random controls."""
        return any(point.random for panel in self.panels for own in panel.series.values() for point in own)

    @property
    def has_chosen(self) -> bool:
        """Whether something is marked as chosen."""
        return any(panel.chosen for panel in self.panels)

    @property
    def where(self) -> dict[float, float]:
        """Where values are drawn: factors at even distances, for they are often 0.5, 1, 2, 10; layers at their own."""
        return {x: float(i) if self.axis == "factor" else x for i, x in enumerate(self.places)}


def panel_figure(curves: Curves, panel: Panel, names: Names) -> Figure:
    """Return one panel as a figure of its own, for a page that arranges panels by its width."""
    made = figure(*_PANEL)
    _draw_panel(made.subplots(), curves, panel, names)
    return made


def legend_figure(curves: Curves, _: Names) -> Figure:
    """Return what the lines of the panels are."""
    rows = len(curves.labels) + curves.has_random + curves.has_chosen
    made = figure(_PANEL[0], 0.19 * rows + 0.2)
    _legend(made.subplots(), curves, columns=1, place="upper left")
    return made


def all_panels(curves: Curves, names: Names) -> Figure:
    """Return all panels in one figure."""
    number = len(curves.panels)
    columns = min(_IN_A_ROW, number)
    rows = math.ceil(number / columns)
    lines = math.ceil((len(curves.labels) + curves.has_random + curves.has_chosen) / columns)
    heights = (_PANEL[1] * rows, 0.2 * lines + 0.15)
    made = figure(_PANEL[0] * columns, sum(heights))
    above, below = made.subfigures(2, 1, height_ratios=heights, squeeze=False).ravel()
    grid = above.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, curves.panels, strict=False):
        _draw_panel(axes, curves, panel, names)
    for axes in grid[number:]:
        axes.axis("off")
    _legend(below.subplots(), curves, columns=columns, place="center left")
    return made


def choices_figure(choices: Mapping[str, Choice], metric: str, names: Names) -> Figure:
    """Return the chosen condition of each language: its value on both halves, beside its random controls."""
    shown = list(reversed(list(choices.items())))
    made = figure(ROWS, 0.3 * len(shown) + 1.1)
    axes = made.subplots()
    for place, (_, choice) in enumerate(shown):
        if choice.condition is None:
            # From the left edge, wherever the values are.
            axes.text(
                *(0.02, place, "nothing stayed under the limit"),
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=8,
                color=GREY,
            )
            continue
        if choice.random is not None:
            ends = [choice.random.low, choice.random.high]
            axes.plot(ends, [place, place], color=GREY, linewidth=5, alpha=0.5, solid_capstyle="butt")
            axes.plot([choice.random.mean], [place], "|", color=GREY, markersize=10)
        axes.plot([choice.value], [place], "o", markerfacecolor=PAPER, color=SERIES[0], markersize=6)
        axes.plot([choice.held_out], [place], "o", color=SERIES[0], markersize=6)
    axes.set_yticks(range(len(shown)), [names(language) for language, _ in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    if metric == "LSS":
        axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(metric)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    handles = [
        legend_line(marker="o", color=SERIES[0], linestyle="none"),
        legend_line(marker="o", color=SERIES[0], markerfacecolor=PAPER, linestyle="none"),
    ]
    labels = ["reported", "when choosing"]
    if any(choice.random is not None for _, choice in shown):
        handles.append(legend_line(color=GREY, linewidth=5, alpha=0.5))
        labels.append("random neurons")
    made.legend(handles, labels, loc="outside upper left", ncols=3)
    return made


def _draw_panel(axes: Axes, curves: Curves, panel: Panel, names: Names) -> None:
    where = curves.where
    for number, label in enumerate(curves.labels):
        points = panel.series.get(label, ())
        _draw_series(axes, [where[point.x] for point in points], points, number)
        for point in points:
            if point.treatment == panel.chosen:
                axes.plot(where[point.x], point.lss, markersize=11, zorder=4, **_RING)
    axes.set_title(names(panel.language))
    axes.set_ylim(-0.03, 1.06)
    ends = min(where.values()), max(where.values())
    margin = max(0.25, 0.04 * (ends[1] - ends[0]))
    axes.set_xlim(ends[0] - margin, ends[1] + margin)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    places = curves.places[:: math.ceil(len(curves.places) / _MOST_TICKS)]
    axes.set_xticks([where[x] for x in places], [f"{x:g}" for x in places])
    axes.set_xlabel(curves.axis)
    axes.set_ylabel("LSS")
    axes.grid(axis="y")


def _draw_series(axes: Axes, places: Sequence[float], points: Sequence[Point], number: int) -> None:
    colour, marker, dash = (kind[number % len(kind)] for kind in (SERIES, MARKERS, DASHES))
    banded = [(place, point.random) for place, point in zip(places, points, strict=True) if point.random]
    if len(banded) > 1:
        lows, highs = ([getattr(band, end) for _, band in banded] for end in ("low", "high"))
        across = [place for place, _ in banded]
        axes.fill_between(across, lows, highs, color=colour, alpha=0.16, linewidth=0)
        if lows == highs:  # of a single control there is no band
            axes.plot(across, lows, color=colour, alpha=0.35, linewidth=2.5)
    else:
        for place, band in banded:
            bar = [band.low - 0.006, band.high + 0.006]  # seen even where there is one control
            axes.plot([place, place], bar, color=colour, alpha=0.35, linewidth=5, solid_capstyle="butt")
    axes.plot(places, [point.lss for point in points], color=colour, marker=marker, linestyle=dash, zorder=3)


def _legend(axes: Axes, curves: Curves, *, columns: int, place: str) -> None:
    axes.axis("off")
    handles = [
        legend_line(**{name: kind[i % len(kind)] for name, kind in (("color", SERIES), ("marker", MARKERS))})
        for i in range(len(curves.labels))
    ]
    for i, handle in enumerate(handles):
        handle.set_linestyle(DASHES[i % len(DASHES)])
    labels = list(curves.labels)
    if curves.has_random:
        handles.append(legend_line(color=INK, linewidth=7, alpha=0.16))
        labels.append("random neurons, in the line's colour")
    if curves.has_chosen:
        handles.append(legend_line(linestyle="none", markersize=9, **_RING))
        labels.append("chosen")
    axes.legend(handles, labels, loc=place, ncols=columns, handlelength=3, borderaxespad=0)

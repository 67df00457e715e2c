"""Figures with a row for each language: differences with their intervals, and shares of texts by language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_amplify.report.study.drawing import GREY, INK, PAPER, ROWS, SERIES, SHARES, figure, legend_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Interval(NamedTuple):
    """A difference in a row."""

    difference: float
    low: float
    high: float


class Differences(NamedTuple):
    """A row of differences."""

    label: str
    by_kind: Mapping[str, Interval]
    random: Mapping[str, Sequence[float]]
    """By kind those of the random controls."""


class Shares(NamedTuple):
    """A bar: shares of texts, in percent."""

    label: str
    side: str
    percent: Sequence[float]


def differences_figure(rows: Sequence[Differences], kinds: Sequence[str], unit: str) -> Figure:
    """Return differences with intervals: a row for each language, in it a point for each kind."""
    shown = list(reversed(rows))
    made = figure(ROWS, 0.38 * len(shown) + 1.2)
    axes = made.subplots()
    axes.axvline(0, color=INK, linewidth=0.9)
    for place, row in enumerate(shown):
        for number, kind in enumerate(kinds):
            y = place + 0.14 * (len(kinds) - 1) - 0.28 * number
            for value in row.random.get(kind, ()):
                axes.plot(value, y, "x", color=GREY, markersize=5, zorder=2)
            if kind in row.by_kind:
                own = row.by_kind[kind]
                colour, marker = SERIES[number % len(SERIES)], "os^"[number % 3]
                axes.plot([own.low, own.high], [y, y], color=colour, linewidth=1.6)
                axes.plot(own.difference, y, marker, color=colour, markersize=5.5, zorder=3)
    axes.set_yticks(range(len(shown)), [row.label for row in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(unit)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    handles, labels = [], []
    for number, kind in enumerate(kinds):
        handles.append(legend_line(color=SERIES[number % len(SERIES)], marker="os^"[number % 3]))
        labels.append(kind)
    if any(row.random for row in rows):
        handles.append(legend_line(color=GREY, marker="x", linestyle="none"))
        labels.append("random neurons")
    made.legend(handles, labels, loc="outside upper left", ncols=min(3, len(labels)), handlelength=1.6)
    return made


def shares_figure(bars: Sequence[Shares], parts: Sequence[str]) -> Figure:
    """Return stacked bars, one below the other; bars of one label stand together."""
    from matplotlib.patches import Patch

    places: list[float] = []
    ticks: list[tuple[float, str]] = []
    for number, bar in enumerate(bars):
        is_first = number == 0 or bars[number - 1].label != bar.label
        places.append(places[-1] + (1.45 if is_first else 0.92) if places else 0.0)
        if is_first:
            ticks.append((places[-1], bar.label))
    made = figure(ROWS + 0.4, 0.235 * (places[-1] + 1) + 1.2)
    axes = made.subplots()
    for place, bar in zip(places, bars, strict=True):
        start = 0.0
        for value, colour in zip(bar.percent, SHARES, strict=True):
            axes.barh(place, value, left=start, height=0.86, color=colour, edgecolor=PAPER, linewidth=0.6)
            if value >= 7:
                ink = "#ffffff" if colour == SHARES[0] else "#000000"
                axes.text(start + value / 2, place, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
            start += value
        axes.text(101, place, bar.side, va="center", fontsize=7.5, color=INK)
    axes.set_yticks([place for place, _ in ticks], [label for _, label in ticks])
    axes.set_ylim(places[-1] + 0.7, -0.7)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of texts")
    axes.tick_params(axis="y", length=0)
    handles = [Patch(facecolor=colour) for colour in SHARES]
    made.legend(handles, parts, loc="outside upper left", ncols=2, handlelength=1.2)
    return made

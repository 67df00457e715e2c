"""The parts of a study's report: sections with their figures and tables, each drawn and written once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_amplify.report.formatting import show
from lm_eval_amplify.report.study.data import Band
from lm_eval_amplify.report.study.drawing import Drawn, Names, draw, draw_inline
from lm_eval_amplify.report.tables import Column, Table, as_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Picture(NamedTuple):
    """A figure of a section."""

    name: str
    """Of its files."""
    caption: str
    drawn: Drawn
    inline: Sequence[str]
    """``<svg>`` elements; several are panels, which the page arranges."""


class Numbers(NamedTuple):
    """A table of a section, as a reader sees it and in full."""

    name: str
    """Of its file."""
    table: Table
    csv: str
    is_shown: bool = True
    """Whether a page shows it without being asked, where it is short."""


class Section(NamedTuple):
    """A section of the page."""

    name: str
    title: str
    paragraphs: Sequence[str]
    pictures: Sequence[Picture] = ()
    numbers: Sequence[Numbers] = ()
    is_beside: bool = False
    """Whether the first table stands beside the first figure, where there is room."""


class Absent(NamedTuple):
    """What a study has no data of."""

    title: str
    why: str


def picture(name: str, title: str, caption: str, make: Callable[[Names], Figure], languages: Iterable[str]) -> Picture:
    """Return a figure that is shown as it is in its files.

    Args:
        name: Of its files.
        title: What it shows, for those who do not see it.
        caption: Below it.
        make: Makes it.
        languages: Codes of all that are named in it.
    """
    named = list(languages)
    inline = draw_inline(make, named, name=name, title=title)
    return Picture(name, caption, draw(make, named), [inline])


def words(*titles: str) -> list[Column]:
    """Return columns of words."""
    return [Column(title) for title in titles]


def values(*titles: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(title, is_number=True) for title in titles]


def numbers(name: str, table: Table, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Numbers:
    """Return a table in both forms.

    Args:
        name: Of its file.
        table: As a reader sees it.
        columns: Names in the file.
        rows: Of the file: numbers in full, languages as codes.
    """
    return Numbers(name, table, as_csv(columns, rows))


def three(value: float | None, *, sign: bool = False) -> str:
    """Return a number with three decimals, or nothing where there is none."""
    return "" if value is None or math.isnan(value) else show(value, digits=3, sign=sign)


def counted(number: int, noun: str) -> str:
    """Return ``1 text`` or ``2 texts``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def band_in_words(band: Band | None) -> str:
    """Return the random controls as ``0.550 (0.500 to 0.600)``, of a single one the value; nothing without any."""
    if band is None:
        return ""
    ends = f" ({three(band.low)} to {three(band.high)})" if band.low != band.high else ""
    return f"{three(band.mean)}{ends}"

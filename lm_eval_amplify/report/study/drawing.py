"""Figures: how they look, the letters of their labels, and the bytes of their files, the same for the same figure.

A figure is drawn twice: for SVG, whose text stays text and finds its letters where it is shown, and for PNG, whose
letters must be in the fonts that are installed here.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lm_eval_amplify.errors import AmplifyError
from lm_eval_amplify.languages import endonym, language_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MplFigure
    from matplotlib.lines import Line2D

INK, FAINT, PAPER, ACCENT, GREY = "#1c1e22", "#d6d9dd", "#fffffe", "#b3261e", "#73777d"
SERIES = ("#1f6fb4", "#d9600f", "#16826b", "#a8479c", "#a17a00", "#5b5fc7", "#8a4b33", "#5f6a73")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
SHARES = ("#2067a8", "#e0a03a", "#9c7bc0", "#b9bdc3")
"""Of what is in the target language, in the base language, in another one, in none."""

ROWS = 4.7
"""Width in inches of a figure with a row for each language; a narrow window has just room for it."""

# What a page shows them as, so that they follow its light or dark colours.
_VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper", ACCENT: "--accent", GREY: "--grey"} | {
    colour: f"--series-{number}" for number, colour in enumerate(SERIES)
}
_FIRST_FONT = "DejaVu Sans"  # comes with matplotlib; wide, so that other fonts fit where it does
_FONTS = "'DejaVu Sans', Verdana, 'Noto Sans', 'Noto Sans CJK SC', 'Noto Sans Thai', 'Noto Sans Tamil', sans-serif"
_FAMILY = re.compile(r"(font: [^;\"]*?[\d.]+px|font-family:) [^;\"]*")
_DECLARATION = re.compile(r"<!DOCTYPE[^>]*>\s*")
_BOXES = "Last Resort"
"""matplotlib's own font that has a box for every letter."""
_DPI = 144
_POINTS, _PIXELS = 72, 96

Names: TypeAlias = Callable[[str], str]
"""What a language is called in a figure, by its code."""


class Drawn(NamedTuple):
    """A figure as files."""

    svg: bytes
    png: bytes


def draw(make: Callable[[Names], MplFigure], languages: Iterable[str]) -> Drawn:
    """Draw a figure for files; the same figure gives the same bytes.

    Args:
        make: Makes it, given what languages are called.
        languages: Codes of all that are named in it.

    Raises:
        AmplifyError: matplotlib is not installed.
    """
    png = _saved(make, name_that_can_be_drawn, languages, "png")
    return Drawn(_svg(make, languages).encode(), png)


def draw_inline(make: Callable[[Names], MplFigure], languages: Iterable[str], *, name: str, title: str) -> str:
    """Draw a figure for a page: an ``<svg>`` element in the page's colours, light or dark.

    Args:
        make: Makes it, given what languages are called.
        languages: Codes of all that are named in it.
        name: Unlike that of any other figure of the page; begins its ids.
        title: What it shows, for those who do not see it.

    Raises:
        AmplifyError: matplotlib is not installed.
    """
    svg = _svg(make, languages)
    opening, rest = svg[svg.index("<svg") :].split(">", 1)
    rest = re.sub(r"<(metadata|style)\b.*?</\1>", "", rest, flags=re.DOTALL)
    rest = re.sub(r'\bid="', rf'id="{name}-', rest)
    rest = re.sub(r'((?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", rest)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, f"var({variable})")
    view = re.search(r'viewBox="([^"]*)"', opening)
    assert view is not None  # noqa: S101  # matplotlib's always have one
    width = float(view[1].split()[2]) * _PIXELS / _POINTS
    # Smaller than this its letters cannot be read, and it is scrolled.
    least = min(width, max(0.75 * width, 330))
    size = f"width:100%;max-width:{width:.0f}px;min-width:{least:.0f}px"
    return f'<svg role="img" aria-label="{escape(title)}" viewBox="{view[1]}" style="{size}">{rest.strip()}'


def full_name(code: str) -> str:
    """Return a language's English name and its own: ``Japanese 日本語``."""
    own = endonym(code)
    return f"{language_name(code)} {own}" if own else language_name(code)


def name_that_can_be_drawn(code: str) -> str:
    """Return the same, without its own name where no installed font has the letters of that."""
    own = endonym(code)
    return full_name(code) if own and fonts_for(own) is not None else language_name(code)


@cache
def fonts_for(text: str) -> tuple[str, ...] | None:
    """Return installed fonts that have all letters of a text, as few as can be found, or None."""
    missing = {ord(letter) for letter in text if not letter.isspace()}
    chosen = []
    for family, path in _installed():
        found = missing & _letters(path)
        if found:
            chosen.append(family)
            missing -= found
        if not missing:
            return tuple(chosen)
    return None


def figure(width: float, height: float) -> MplFigure:
    """Return an empty figure, in inches.

    Raises:
        AmplifyError: matplotlib is not installed.
    """
    # Not pyplot: it would open a window system, and keep every figure.
    _require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend_line(**options: Any) -> Line2D:
    """Return a line for a legend, of what is not drawn by itself."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **options)


def style(fonts: Sequence[str]) -> dict[str, Any]:
    """Return matplotlib's settings that all figures are drawn with."""
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color", "axes.edgecolor")
    return dict.fromkeys(inked, INK) | {
        "font.family": list(fonts),
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "grid.color": FAINT,
        "grid.linewidth": 0.7,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "lines.markersize": 4.5,
        "svg.fonttype": "none",
        "svg.hashsalt": "lm-eval-amplify",
    }


def _saved(make: Callable[[Names], MplFigure], names: Names, languages: Iterable[str], kind: str) -> bytes:
    _require_matplotlib()
    import matplotlib as mpl

    fallbacks = dict.fromkeys(font for code in languages for font in fonts_for(endonym(code)) or ())
    fonts = [_FIRST_FONT, *(font for font in fallbacks if font != _FIRST_FONT)]
    metadata = {"svg": dict.fromkeys(("Date", "Creator", "Format", "Type")), "png": {"Software": None}}[kind]
    file = io.BytesIO()
    with mpl.rc_context(style(fonts)), warnings.catch_warnings():
        # In SVG a letter that no font here has is measured as a box, and drawn with the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        make(names).savefig(file, format=kind, dpi=_DPI if kind == "png" else _POINTS, metadata=metadata)
    return file.getvalue()


def _svg(make: Callable[[Names], MplFigure], languages: Iterable[str]) -> str:
    svg = _DECLARATION.sub("", _saved(make, full_name, languages, "svg").decode())
    return _FAMILY.sub(rf"\1 {_FONTS}", svg)


@cache
def _installed() -> list[tuple[str, str]]:
    """Upright fonts of normal weight with their files: matplotlib's own, then Noto Sans, then others by name."""
    _require_matplotlib()
    from matplotlib.font_manager import fontManager

    found: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        is_upright = entry.style == "normal" and entry.weight in (400, "normal", "regular", "book")
        if is_upright and not entry.name.startswith(_BOXES):
            found.setdefault(entry.name, entry.fname)
    first = (_FIRST_FONT, "Noto Sans CJK JP")
    return sorted(
        found.items(), key=lambda item: (item[0] != _FIRST_FONT, item[0] not in first, "Noto Sans" not in item[0], item)
    )


@cache
def _letters(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):  # a file that is gone, or no font
        return frozenset()


def _require_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise AmplifyError("figures need matplotlib: pip install 'lm-eval-amplify[report]'")

"""Figures of matrices: a number for each pair of languages, or of language and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.report.study.drawing import figure

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_MOST_NUMBERED = 24
"""Columns that still leave room for a number in a cell."""
_LEVELS = 32
_WIDEST = 8.6  # inches of cells without numbers


@dataclass(frozen=True)
class Matrix:
    """What a heatmap is drawn of.

    Attributes:
        values: ``[rows, columns]``, NaN where there is none.
        rows: Labels.
        columns: Labels.
        row_title: What rows are.
        column_title: What columns are.
        unit: What the numbers are.
        format: Of a number in a cell.
        is_change: Whether 0 is in the middle of the colours.
        is_more_better: Of changes: whether what is above 0 is blue, in place of red.
        lowest: Of the colours, where it is no change.
        highest: Likewise; None: of the values.
        outlined: Cells, as (row, column), that are framed.
    """

    values: NDArray[np.float64]
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    unit: str
    format: str = ".2f"
    is_change: bool = False
    is_more_better: bool = True
    lowest: float = 0.0
    highest: float | None = None
    outlined: Sequence[tuple[int, int]] = ()


def matrix_figure(matrix: Matrix) -> Figure:
    """Return a heatmap with its numbers in its cells."""
    from matplotlib.patches import Rectangle

    number_rows, number_columns = matrix.values.shape
    is_numbered = number_columns <= _MOST_NUMBERED
    cell = 0.45 if is_numbered else max(0.1, min(0.45, _WIDEST / number_columns))
    names = max(map(len, matrix.columns), default=0) * 0.062
    made = figure(cell * number_columns + 3.4, 0.29 * number_rows + min(names, 2.2) + 0.9)
    axes = made.subplots()
    low, high, colours = _colours(matrix)
    image = axes.pcolormesh(
        np.ma.masked_invalid(matrix.values), cmap=colours, vmin=low, vmax=high, edgecolors="none", snap=True
    )
    if is_numbered:
        for (row, column), value in np.ndenumerate(matrix.values):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                colour = "#ffffff" if is_dark else "#000000"
                text = format(value, matrix.format)
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color=colour)
    for row, column in matrix.outlined:
        axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="#000000", linewidth=1.4))
    axes.invert_yaxis()
    axes.set_yticks(np.arange(number_rows) + 0.5, matrix.rows)
    every = 1 if max(map(len, matrix.columns), default=0) > 3 else max(1, number_columns // 20)
    labels = list(matrix.columns)[::every]
    is_long = max(map(len, labels), default=0) > 3
    turn: dict[str, Any] = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if is_long else {}
    axes.set_xticks(np.arange(number_columns)[::every] + 0.5, labels, **turn)
    axes.set_ylabel(matrix.row_title)
    axes.set_xlabel(matrix.column_title)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = made.colorbar(image, ax=axes, label=matrix.unit, fraction=0.04, pad=0.015, aspect=max(10, 1.9 * number_rows))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7.5)
    return made


def _colours(matrix: Matrix) -> tuple[float, float, Colormap]:
    import matplotlib as mpl

    known = matrix.values[np.isfinite(matrix.values)]
    if matrix.is_change:
        # One cell far out must not leave all others white.
        high = float(np.quantile(np.abs(known), 0.97)) if known.size else 1.0
        colours = mpl.colormaps["RdBu" if matrix.is_more_better else "RdBu_r"].resampled(_LEVELS + 1)
        return -(high or 1.0), high or 1.0, colours
    high = matrix.highest if matrix.highest is not None else float(known.max()) if known.size else 1.0
    highest = high if high > matrix.lowest else matrix.lowest + 1
    return matrix.lowest, highest, mpl.colormaps["viridis"].resampled(_LEVELS)

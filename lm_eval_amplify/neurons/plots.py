"""A neuron file as pictures: neurons per layer and language, and how much languages share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import AmplifyError
from lm_eval_amplify.languages import language_name
from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.neurons.sets import jaccard
from lm_eval_amplify.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = 0.36
"""Inches across a cell of a heatmap."""
_MOST_NUMBERED = 24
"""Languages of an overlap whose cells still have room for a number."""
_DPI = 150


def plot_neurons(content: NeuronFile, path: str | os.PathLike[str]) -> None:
    """Draw the neurons per layer and language, and below the overlap of the languages.

    Args:
        content: The neuron file.
        path: Where to write; the suffix decides the format.

    Raises:
        AmplifyError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    num_layers = content.manifest.num_layers
    counts = np.array([content.neurons[language].per_layer(num_layers) for language in content.languages])
    names = _names(content)
    width = _CELL * max(counts.shape[1], len(names)) + 4
    heights = [_CELL * len(names) + 1.4, _CELL * len(names) + 2.4]
    figure = _figure(width, sum(heights))
    above, below = figure.subplots(2, 1, height_ratios=heights)
    _heatmap(figure, above, counts.astype(np.float64), "neurons")
    above.set_title(f"Neurons per layer: {content.manifest.model or 'model not recorded'}, {content.manifest.method}")
    above.set_xlabel("layer")
    above.set_yticks(range(len(names)), [f"{name}  {n}" for name, n in zip(names, counts.sum(1), strict=True)])
    above.set_xticks(range(0, counts.shape[1], max(1, counts.shape[1] // 16)))
    _draw_overlap(figure, below, jaccard(content, content), names, names)
    _save(figure, path)


def plot_overlap(
    overlap: NDArray[np.float64], rows: NeuronFile, columns: NeuronFile, path: str | os.PathLike[str]
) -> None:
    """Draw a matrix of :func:`~lm_eval_amplify.neurons.sets.jaccard` as a heatmap.

    Raises:
        AmplifyError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    figure = _figure(_CELL * len(columns.languages) + 4, _CELL * len(rows.languages) + 2.4)
    _draw_overlap(figure, figure.subplots(), overlap, _names(rows), _names(columns))
    _save(figure, path)


def _names(content: NeuronFile) -> list[str]:
    return [language_name(language) for language in content.languages]


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise AmplifyError("plots need matplotlib: pip install 'lm-eval-amplify[plot]'") from error
    # Not pyplot: it would open a window system, and keep every figure.
    return Figure(figsize=(width, height), layout="constrained")


def _draw_overlap(
    figure: Figure, axes: Axes, overlap: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> None:
    percent = 100 * overlap
    _heatmap(figure, axes, percent, "shared, % of the neurons of either", highest=100)
    axes.set_title("Overlap of languages (Jaccard)")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    if max(overlap.shape) <= _MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(percent):
            if np.isfinite(value):
                colour = "white" if value < 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)


def _heatmap(figure: Figure, axes: Axes, values: NDArray[np.float64], unit: str, highest: float | None = None) -> None:
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0, vmax=highest, interpolation="nearest")
    figure.colorbar(image, ax=axes, label=unit, fraction=0.03, pad=0.01)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write whole or not at all; the same figure gives the same bytes."""
    import matplotlib as mpl

    path = Path(path)
    suffix = path.suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise AmplifyError(f"cannot draw into {path}: expected a file name that ends in .{', .'.join(sorted(known))}")
    dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    try:
        with mpl.rc_context({"svg.hashsalt": "lm-eval-amplify"}), whole_file(path) as file:
            figure.savefig(file, format=suffix, dpi=_DPI, metadata=dates.get(suffix))
    except OSError as error:
        raise AmplifyError(f"cannot write {path}: {error.strerror or error}") from error

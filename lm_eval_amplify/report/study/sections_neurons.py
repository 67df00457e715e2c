"""The section on the neurons themselves: how many each language has in each layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons import Manifest, read_neurons
from lm_eval_amplify.report.study.data import StudyData
from lm_eval_amplify.report.study.drawing import Names, full_name
from lm_eval_amplify.report.study.figures_matrix import Matrix, matrix_figure
from lm_eval_amplify.report.study.parts import Absent, Section, counted, numbers, picture, values, words
from lm_eval_amplify.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEURONS = "neurons.safetensors"
"""In the study's folder."""
_MOST_LAYERS = 40
"""Columns of a table of layers; more are in its CSV alone."""


def neuron_section(study: StudyData) -> Section | Absent:
    """Return how many neurons each language has in each layer."""
    name, title = "neurons-by-layer", "Neurons by layer"
    path = study.stored.path / NEURONS
    if not path.is_file():
        return Absent(title, f"the folder has no {NEURONS}")
    try:
        content = read_neurons(path)
    except NeuronFileError as error:
        return Absent(title, str(error))
    languages = [language for language in study.languages if language in content.languages]
    if not languages:
        return Absent(title, f"{NEURONS} has none of the study's languages")
    layers = content.manifest.num_layers
    counts = np.array([content.neurons[language].per_layer(layers) for language in languages])
    shown = range(layers if layers <= _MOST_LAYERS else 0)
    columns = [*words("language"), *values("neurons", *(f"layer {layer}" for layer in shown))]
    by_language = list(zip(languages, counts.tolist(), strict=True))
    rows = [[full_name(one), str(sum(own)), *(str(own[layer]) for layer in shown)] for one, own in by_language]
    names = ("language", "neurons", *(f"layer_{layer}" for layer in range(layers)))
    table = numbers(name, Table(title, "", columns, rows), names, [[one, sum(own), *own] for one, own in by_language])
    caption = "Neurons by language and layer; in brackets all of a language."
    drawn = picture(name, "Neurons by language and layer", caption, partial(_figure, counts, languages), languages)
    return Section(name, title, [_in_words(counts, content.manifest)], [drawn], [table])


def _in_words(counts: NDArray[np.int64], manifest: Manifest) -> str:
    width = f" of {manifest.intermediate_size} neurons" if manifest.intermediate_size else ""
    corpus = f" on {manifest.corpus}" if manifest.corpus else ""
    return (
        f"{counts.sum()} neurons of {counted(len(counts), 'language')}, in {counted(manifest.num_layers, 'layer')}"
        f"{width}, found by {manifest.method}{corpus}. One that languages share counts for each of them."
    )


def _figure(counts: NDArray[np.int64], languages: Sequence[str], names: Names) -> Figure:
    rows = [f"{names(language)} ({own.sum()})" for language, own in zip(languages, counts, strict=True)]
    columns = [str(layer) for layer in range(counts.shape[1])]
    return matrix_figure(Matrix(counts.astype(np.float64), rows, columns, "", "layer", "neurons", format=".0f"))

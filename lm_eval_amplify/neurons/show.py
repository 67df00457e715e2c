"""A neuron file as text: what it says of itself, and where each language's neurons lie."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.languages import language_name
from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.neurons.sets import keys_of

_COLUMNS_AT_ONCE = 8


def describe(content: NeuronFile) -> str:
    """Return the manifest, the number of neurons per language, and their share by layer in percent."""
    fields = content.manifest.model_dump(mode="json", exclude_none=True, exclude={"languages"})
    width = max(map(len, fields))
    lines = [f"{name:<{width}}  {_plain(value)}" for name, value in fields.items()]
    return "\n".join([*lines, "", *_numbers(content), "", *_shares(content)])


def describe_overlap(overlap: NDArray[np.float64], rows: NeuronFile, columns: NeuronFile) -> str:
    """Return a matrix of :func:`~lm_eval_amplify.neurons.sets.jaccard` as a table, in percent."""
    lines = []
    for start in range(0, len(columns.languages), _COLUMNS_AT_ONCE):
        languages = columns.languages[start : start + _COLUMNS_AT_ONCE]
        lines.append("% shared  " + "".join(f"  {language:>8}" for language in languages))
        for language, own in zip(rows.languages, 100 * overlap[:, start : start + _COLUMNS_AT_ONCE], strict=True):
            cells = (f"{'-':>8}" if np.isnan(value) else f"{value:8.1f}" for value in own)
            lines.append(f"{language:<10}" + "".join(f"  {cell}" for cell in cells))
        lines.append("")
    return "\n".join(lines[:-1])


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbers(content: NeuronFile) -> list[str]:
    names = {language: language_name(language) for language in content.languages}
    width = max(map(len, names.values()))
    lines = [f"{'language':<10}  {'name':<{width}}  neurons  statistics"]
    for language, name in names.items():
        own = content.neurons[language]
        statistics = ", ".join(own.statistics) or "none"
        lines.append(f"{language:<10}  {name:<{width}}  {len(own):>7}  {statistics}")
    distinct = {key for own in content.neurons.values() for key in keys_of(own)}
    lines.append(f"{'':<10}  {'distinct':<{width}}  {len(distinct):>7}")
    return lines


def _shares(content: NeuronFile) -> list[str]:
    """Layers down, languages across, a few at a time so that a line fits a terminal."""
    num_layers = content.manifest.num_layers
    lines = []
    for start in range(0, len(content.languages), _COLUMNS_AT_ONCE):
        languages = content.languages[start : start + _COLUMNS_AT_ONCE]
        counts = [content.neurons[language].per_layer(num_layers) for language in languages]
        lines.append("% by layer" + "".join(f"  {language:>8}" for language in languages))
        for layer in range(num_layers):
            shares = (f"{100 * count[layer] / count.sum():8.1f}" if count.sum() else f"{'-':>8}" for count in counts)
            lines.append(f"{layer:>10}" + "".join(f"  {share}" for share in shares))
        lines.append("")
    return lines[:-1]

"""Neuron files as sets, language by language: union, intersection, difference, and how much two of them share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile

_logger = logging.getLogger(__name__)

Key = tuple[int, int, int]
"""(layer, expert, index); the expert is 0 where there are none."""


def union(files: Sequence[NeuronFile]) -> NeuronFile:
    """Return, of each language that any file has, the neurons that any of these has.

    Statistics are kept that all files with neurons of a language have of it; a shared neuron's are the first file's.

    Raises:
        NeuronFileError: There are fewer than two files, or they are of models of different shapes.
    """
    languages = tuple(dict.fromkeys(language for file in files for language in file.languages))

    def united(parts: Sequence[LanguageNeurons]) -> LanguageNeurons:
        everything: dict[Key, tuple[LanguageNeurons, int]] = {}
        for part in parts:
            for position, key in enumerate(keys_of(part)):
                everything.setdefault(key, (part, position))
        return _gathered(everything, [part for part in parts if len(part)])

    return _combined("union", files, languages, united)


def intersect(files: Sequence[NeuronFile]) -> NeuronFile:
    """Return, of each language that all files have, the neurons that all of these have; statistics are the first's.

    Raises:
        NeuronFileError: There are fewer than two files, they are of models of different shapes, or share no language.
    """
    shared = set.intersection(*(set(file.languages) for file in files)) if files else set()
    languages = tuple(language for file in files[:1] for language in file.languages if language in shared)
    if not languages and len(files) > 1:
        raise NeuronFileError(f"the {len(files)} files have no language in common")

    def common(parts: Sequence[LanguageNeurons]) -> LanguageNeurons:
        others = [set(keys_of(part)) for part in parts[1:]]
        return _kept(parts[0], lambda key: all(key in other for other in others))

    return _combined("intersect", files, languages, common)


def subtract(files: Sequence[NeuronFile]) -> NeuronFile:
    """Return the first file without the neurons that another one has in the same language; statistics are its own.

    Raises:
        NeuronFileError: There are fewer than two files, or they are of models of different shapes.
    """
    languages = tuple(language for file in files[:1] for language in file.languages)

    def rest(parts: Sequence[LanguageNeurons]) -> LanguageNeurons:
        others = {key for part in parts[1:] for key in keys_of(part)}
        return _kept(parts[0], lambda key: key not in others)

    return _combined("subtract", files, languages, rest)


def jaccard(rows: NeuronFile, columns: NeuronFile) -> NDArray[np.float64]:
    """Return how much each language's neurons in one file and in another overlap, ``[rows' languages, columns']``.

    Of two sets of neurons, the number that both have over the number that any has; NaN where neither has any.

    Raises:
        NeuronFileError: The files are of models of different shapes.
    """
    _check_same_shape([rows, columns])
    down = [set(keys_of(rows.neurons[language])) for language in rows.languages]
    across = [set(keys_of(columns.neurons[language])) for language in columns.languages]
    return np.array([[len(a & b) / len(a | b) if a | b else np.nan for b in across] for a in down])


def keys_of(own: LanguageNeurons) -> list[Key]:
    """Return the (layer, expert, index) of each neuron."""
    expert = own.expert if own.expert is not None else np.zeros_like(own.layer)
    return list(zip(own.layer.tolist(), expert.tolist(), own.index.tolist(), strict=True))


def _combined(
    name: str,
    files: Sequence[NeuronFile],
    languages: tuple[str, ...],
    combine: Callable[[Sequence[LanguageNeurons]], LanguageNeurons],
) -> NeuronFile:
    if len(files) < 2:
        raise NeuronFileError(f"{name} needs two neuron files or more, got {len(files)}")
    _check_same_shape(files)
    neurons = {
        language: combine([file.neurons[language] for file in files if language in file.neurons])
        for language in languages
    }
    first = files[0].manifest
    width = next((m.intermediate_size for m in (file.manifest for file in files) if m.intermediate_size), None)
    kept: dict[str, Any] = {}
    origins = [getattr(file.manifest, "statistics_of", None) for file in files]
    if any(own.statistics for own in neurons.values()):
        kept["statistics_of"] = origins[0] if all(origin == origins[0] for origin in origins) else origins
    manifest = Manifest(
        model=first.model,
        revision=first.revision,
        architecture=first.architecture,
        num_layers=first.num_layers,
        intermediate_size=width,
        num_experts=first.num_experts,
        method=name,
        parameters={"of": [_origin(file) for file in files]},
        package_version=version("lm-eval-amplify"),
        languages=languages,
        **kept,
    )
    return NeuronFile(manifest, neurons)


def _origin(file: NeuronFile) -> dict[str, Any]:
    manifest = file.manifest
    return {
        "sha256": file.sha256,
        "model": manifest.model,
        "method": manifest.method,
        "parameters": manifest.parameters,
        "corpus": manifest.corpus,
    }


def _check_same_shape(files: Sequence[NeuronFile]) -> None:
    first = files[0].manifest
    for file in files[1:]:
        own = file.manifest
        for field in ("num_layers", "intermediate_size", "num_experts"):
            one, other = getattr(first, field), getattr(own, field)
            if one != other and None not in (one, other):
                raise NeuronFileError(
                    f"the files are of different models: manifest field {field!r} is {one} and {other}"
                )
        if first.model and own.model and first.model != own.model:
            _logger.warning("the files are of two models of one shape, %s and %s", first.model, own.model)


def _kept(own: LanguageNeurons, is_kept: Callable[[Key], bool]) -> LanguageNeurons:
    return _at(own, np.array([is_kept(key) for key in keys_of(own)], np.bool_))


def _at(own: LanguageNeurons, chosen: NDArray[np.bool_]) -> LanguageNeurons:
    return LanguageNeurons(
        own.layer[chosen],
        own.index[chosen],
        {name: values[chosen] for name, values in own.statistics.items()},
        None if own.expert is None else own.expert[chosen],
    )


def _gathered(
    everything: Mapping[Key, tuple[LanguageNeurons, int]], parts: Sequence[LanguageNeurons]
) -> LanguageNeurons:
    ordered = sorted(everything)
    names = sorted(set.intersection(*(set(part.statistics) for part in parts))) if parts else []
    sources = [everything[key] for key in ordered]
    statistics = {
        name: np.array([part.statistics[name][position] for part, position in sources], np.float32) for name in names
    }
    layer, expert, index = np.array(ordered, np.int32).reshape(-1, 3).T.copy()
    return LanguageNeurons(layer, index, statistics, expert if any(part.expert is not None for part in parts) else None)

"""Neuron masks of LAPE's reference implementation (Tang et al. 2024): ``.pth`` files, read without running code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.whole_files import whole_file


def import_reference_mask(
    path: str | os.PathLike[str],
    languages: Sequence[str],
    *,
    model: str | None = None,
    intermediate_size: int | None = None,
) -> NeuronFile:
    """Read a reference mask: a list over languages of a list over layers of index tensors.

    Args:
        path: The ``.pth`` file, loaded with ``weights_only=True``.
        languages: Its languages in order (the file does not name them); any name that
            :func:`~lm_eval_amplify.languages.canonical_language` knows.
        model: Name of the model to record.
        intermediate_size: d_ff to record and to check indices against; the file does not hold it.

    Raises:
        NeuronFileError: The file is not a mask, or has another number of languages.
        LanguageError: A language is unknown.
    """
    codes = tuple(canonical_language(language) for language in languages)
    masks = _load(path)
    if len(masks) != len(codes):
        raise NeuronFileError(
            f"{os.fspath(path)} holds {len(masks)} languages, but {len(codes)} are named: {', '.join(codes)}"
        )
    neurons = {code: _language(path, code, layers) for code, layers in zip(codes, masks, strict=True)}
    manifest = Manifest(
        model=model,
        num_layers=len(masks[0]),
        intermediate_size=intermediate_size,
        method="imported",
        parameters={"source": Path(path).name},
        package_version=version("lm-eval-amplify"),
        languages=codes,
    )
    return NeuronFile(manifest, neurons)


def export_reference_mask(content: NeuronFile, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write a neuron file as a reference mask: a list over its languages of a list over layers of index tensors.

    Args:
        content: The neuron file.
        path: Where to write; the file appears only when it is whole.

    Returns:
        Names of what the mask has no place for and is lost: ``language names``, and the statistics' names.

    Raises:
        NeuronFileError: The neurons are of a mixture of experts, or the file cannot be written.
    """
    import torch

    if any(own.expert is not None for own in content.neurons.values()):
        raise NeuronFileError("the neurons are of a mixture of experts, for which there is no reference mask")
    masks = [
        [
            torch.from_numpy(own.index[own.layer == layer].astype(np.int64))
            for layer in range(content.manifest.num_layers)
        ]
        for own in (content.neurons[language] for language in content.languages)
    ]
    try:
        with whole_file(path) as file:
            torch.save(masks, file)
    except (OSError, RuntimeError) as error:  # torch's writer has errors of its own
        raise NeuronFileError(
            f"cannot write mask {os.fspath(path)}: {getattr(error, 'strerror', None) or error}"
        ) from error
    statistics = {name for own in content.neurons.values() for name in own.statistics}
    return ("language names", *sorted(statistics))


def _load(path: str | os.PathLike[str]) -> list[list[Any]]:
    import torch

    try:
        masks = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NeuronFileError(f"cannot read mask {os.fspath(path)}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever the unpickler meets
        raise NeuronFileError(
            f"{os.fspath(path)} is not a mask that loads without running code ({type(error).__name__})"
        ) from error
    layered = isinstance(masks, list | tuple) and all(isinstance(layers, list | tuple) for layers in masks)
    if not layered or not masks or len({len(layers) for layers in masks}) != 1 or not len(masks[0]):
        raise NeuronFileError(
            f"{os.fspath(path)} is not a reference mask: expected a list per language of a list per layer "
            f"of index tensors, all of the same number of layers, found {type(masks).__name__}"
        )
    return [list(layers) for layers in masks]


def _language(path: str | os.PathLike[str], code: str, layers: list[Any]) -> LanguageNeurons:
    indices = []
    for layer, mask in enumerate(layers):
        values = np.asarray(mask)
        integers = not values.size or (values.dtype.kind in "iu" and values.max() <= np.iinfo(np.int32).max)
        if values.ndim != 1 or not integers:
            raise NeuronFileError(
                f"{os.fspath(path)}: layer {layer} of {code} is {values.dtype}{list(values.shape)}, "
                "expected a list of neuron indices"
            )
        indices.append(np.unique(values.astype(np.int32)))
    layer_of_each = np.repeat(np.arange(len(layers), dtype=np.int32), [len(index) for index in indices])
    return LanguageNeurons(layer_of_each, np.concatenate(indices).astype(np.int32))

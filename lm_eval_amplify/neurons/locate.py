"""From what a user names to a neuron file on disk: a path, a file on the Hub, or one that ships with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_amplify.errors import NeuronFileError, did_you_mean
from lm_eval_amplify.hub_files import SCHEME, download_file
from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.neurons.serialize import read_neurons
from lm_eval_amplify.resources import neuron_masks_folder

SUFFIX = ".neurons.safetensors"


def locate_neurons(name: str | os.PathLike[str]) -> Path:
    """Return the path of a neuron file.

    Args:
        name: A path, ``hf://org/repo/file[@revision]``, or the name of a file in ``neuron_masks/`` without suffix.

    Raises:
        NeuronFileError: There is no such file; names what was looked for.
    """
    text = os.fspath(name)
    if text.startswith(SCHEME):
        return download_file(text, NeuronFileError)
    if Path(text).is_file():
        return Path(text)
    bundled = {path.name.removesuffix(SUFFIX): path for path in sorted(neuron_masks_folder().glob(f"*{SUFFIX}"))}
    if text in bundled:
        return bundled[text]
    raise NeuronFileError(
        f"no neuron file {text!r}{did_you_mean(text, bundled)}: give a path, hf://org/repo/file[@revision]"
        + (f", or one of the bundled {', '.join(bundled)}" if bundled else "")
    )


def model_of_neurons(model_args: str | Mapping[str, Any] | None) -> str | None:
    """Return the name of the model that the neuron file in a harness model's arguments was made for.

    Args:
        model_args: As on the harness's command line, ``neurons=babel,factor=2``, or as a mapping.

    Returns:
        None where no neuron file is given, or it names no model, or cannot be read.
    """
    if isinstance(model_args, str):
        model_args = dict(pair.split("=", 1) for pair in model_args.split(",") if "=" in pair)
    neurons = (model_args or {}).get("neurons")
    try:
        if isinstance(neurons, str | os.PathLike):
            neurons = read_neurons(locate_neurons(neurons))
    except NeuronFileError:
        return None
    return neurons.manifest.model if isinstance(neurons, NeuronFile) else None

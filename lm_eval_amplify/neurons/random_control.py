"""Random neurons to compare with: as many in each language and layer, none of them of any language."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile


def random_control(neurons: NeuronFile, seed: int, *, intermediate_size: int | None = None) -> NeuronFile:
    """Return a neuron file with random neurons in place of those of ``neurons``, without statistics.

    Each language gets, in each layer, as many neurons as it had, drawn without replacement from those that no
    language had. Languages are drawn for independently, so neurons may be shared by chance; what a language
    gets depends on nothing but the seed, its name, its numbers and the set of all neurons of ``neurons``.

    Args:
        neurons: The file to make a control for.
        seed: 0 or above.
        intermediate_size: d_ff of the model, for a file that does not record it.

    Raises:
        NeuronFileError: d_ff is unknown, or a layer has not enough other neurons.
    """
    manifest = neurons.manifest
    d_ff = manifest.intermediate_size or intermediate_size
    if d_ff is None:
        raise NeuronFileError("manifest field 'intermediate_size' is not recorded, needed to draw: give the model")
    if seed < 0:
        raise NeuronFileError(f"seed={seed}: expected 0 or above")
    if any(own.expert is not None for own in neurons.neurons.values()):
        raise NeuronFileError("the neurons are of a mixture of experts, for which there is no random control")
    free = _free(neurons, d_ff)
    drawn = {language: _draw(language, own, free, seed) for language, own in neurons.neurons.items()}
    control_of = {
        "sha256": neurons.sha256,
        "method": manifest.method,
        "parameters": manifest.parameters,
        "corpus": manifest.corpus,
    }
    return NeuronFile(
        Manifest(
            model=manifest.model,
            revision=manifest.revision,
            architecture=manifest.architecture,
            num_layers=manifest.num_layers,
            intermediate_size=d_ff,
            method="random",
            parameters={"seed": seed, "control_of": control_of},
            package_version=version("lm-eval-amplify"),
            languages=manifest.languages,
        ),
        drawn,
    )


def _free(neurons: NeuronFile, d_ff: int) -> list[NDArray[np.int64]]:
    """Indices of each layer that are no language's neurons."""
    free = []
    for layer in range(neurons.manifest.num_layers):
        taken = np.concatenate([own.index[own.layer == layer] for own in neurons.neurons.values()])
        if taken.size and taken.max() >= d_ff:
            raise NeuronFileError(
                f"there is a neuron {taken.max()} in layer {layer}, expected 0 to {d_ff - 1} (d_ff {d_ff})"
            )
        free.append(np.setdiff1d(np.arange(d_ff), taken))
    return free


def _draw(language: str, own: LanguageNeurons, free: list[NDArray[np.int64]], seed: int) -> LanguageNeurons:
    drawn = []
    for layer, number in enumerate(own.per_layer(len(free)).tolist()):
        if number > len(free[layer]):
            raise NeuronFileError(
                f"layer {layer} has {len(free[layer])} neurons of no language, fewer than the {number} of "
                f"{language}: no random control of the same numbers is possible"
            )
        # The smallest of raw random numbers: numpy promises the same stream in every version, but not the
        # same draw.
        stream = np.random.PCG64(np.random.SeedSequence([seed, layer, *language.encode()]))
        order = np.argsort(stream.random_raw(len(free[layer])), kind="stable")
        drawn.append(np.sort(free[layer][order[:number]]))
    layers = np.repeat(np.arange(len(free), dtype=np.int32), [len(index) for index in drawn])
    return LanguageNeurons(layers, np.concatenate(drawn).astype(np.int32))

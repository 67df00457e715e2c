"""Random neurons to compare with."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.neurons.random_control import random_control
from lm_eval_amplify.neurons.serialize import from_bytes, to_bytes


def keys(own: LanguageNeurons) -> set[tuple[int, int]]:
    return set(zip(own.layer.tolist(), own.index.tolist(), strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**63), st.integers(1, 6))
def test_there_are_as_many_per_language_and_layer_and_none_of_the_files(seed: int, per_layer: int) -> None:
    given_file = tiny.neurons("gpt2", tiny.LANGUAGES[:4], per_layer=per_layer, seed=seed % 7)
    control = random_control(given_file, seed)
    taken = set().union(*map(keys, given_file.neurons.values()))
    assert control.languages == given_file.languages
    for language, own in control.neurons.items():
        np.testing.assert_array_equal(own.per_layer(tiny.LAYERS), given_file.neurons[language].per_layer(tiny.LAYERS))
        assert len(keys(own)) == len(own)
        assert not keys(own) & taken


def test_the_seed_decides() -> None:
    given_file = tiny.neurons("llama")
    first, again, other = (to_bytes(random_control(given_file, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_seed_gives_the_same_neurons_for_ever() -> None:
    layers = np.repeat(np.arange(2, dtype=np.int32), 2)
    own = LanguageNeurons(layers, np.array([0, 1, 0, 1], np.int32))
    manifest = Manifest(
        num_layers=2, intermediate_size=1000, method="lape", package_version="0", languages=("ind_Latn",)
    )
    drawn = random_control(NeuronFile(manifest, {"ind_Latn": own}), 5).neurons["ind_Latn"]
    assert drawn.layer.tolist() == [0, 0, 1, 1]
    assert drawn.index.tolist() == [290, 645, 219, 341]


def test_every_other_neuron_can_be_drawn() -> None:
    given_file = tiny.neurons("llama", ("ind_Latn",), per_layer=1)
    drawn = set().union(*(keys(random_control(given_file, seed).neurons["ind_Latn"]) for seed in range(600)))
    everything = {(layer, index) for layer in range(tiny.LAYERS) for index in range(tiny.D_FF["llama"])}
    assert drawn == everything - keys(given_file.neurons["ind_Latn"])


def test_the_file_says_what_it_controls_for_and_has_no_statistics() -> None:
    given_file = from_bytes(to_bytes(tiny.neurons("llama", name="org/model")))
    control = random_control(given_file, 3)
    assert control.statistics == ()
    assert (control.manifest.method, control.manifest.model) == ("random", "org/model")
    assert control.manifest.parameters["seed"] == 3
    assert control.manifest.parameters["control_of"]["sha256"] == given_file.sha256


def test_too_few_other_neurons_are_an_error() -> None:
    given_file = tiny.neurons("llama", ("ind_Latn",), per_layer=25)
    with pytest.raises(NeuronFileError, match="layer 0 has 23 neurons of no language, fewer than the 25 of ind_Latn"):
        random_control(given_file, 0)


def test_an_unknown_width_must_be_given_and_must_fit() -> None:
    given_file = tiny.neurons("llama")
    manifest = given_file.manifest.model_copy(update={"intermediate_size": None})
    imported = NeuronFile(manifest, given_file.neurons)
    with pytest.raises(NeuronFileError, match="'intermediate_size' is not recorded"):
        random_control(imported, 0)
    assert random_control(imported, 0, intermediate_size=48).manifest.intermediate_size == 48
    with pytest.raises(NeuronFileError, match=r"there is a neuron \d+ in layer 0, expected 0 to 9"):
        random_control(imported, 0, intermediate_size=10)

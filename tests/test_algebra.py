"""What holds of any neurons, layers, languages and factors."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

LANGUAGES = ("est_Latn", "ind_Latn", "tam_Taml")
INPUTS = torch.tensor([[5, 9, 300, 17, 42, 8], [7, 7, 12, 250, 33, 21]])

families = st.sampled_from(tiny.FAMILIES)
modes = st.sampled_from(["fold", "hook"])
factors = st.one_of(st.floats(0, 1e3), st.sampled_from([0.0, 1.0, 1e-6, 1e3]))
languages = st.lists(st.sampled_from(LANGUAGES), min_size=1, unique=True)
layers = st.lists(st.integers(0, tiny.LAYERS - 1), min_size=1, unique=True).map(lambda some: "+".join(map(str, some)))
statistics = st.floats(-1e3, 1e3, width=32)


@cache
def model(family: str) -> torch.nn.Module:
    """In float64, so that what rounding does stays far below what a mistake does."""
    return tiny.model(family).double()


@st.composite
def neuron_files(draw: st.DrawFn, family: str) -> NeuronFile:
    """Any neurons, none included, in any of the languages, shared or not."""
    own = {}
    places = st.tuples(st.integers(0, tiny.LAYERS - 1), st.integers(0, tiny.D_FF[family] - 1))
    for language in LANGUAGES:
        found = np.array(sorted(draw(st.sets(places, max_size=20))), np.int32).reshape(-1, 2)
        values = draw(st.lists(statistics, min_size=len(found), max_size=len(found)))
        own[language] = LanguageNeurons(found[:, 0].copy(), found[:, 1].copy(), {"max": np.array(values, np.float32)})
    manifest = Manifest(num_layers=tiny.LAYERS, method="random", package_version="0", languages=LANGUAGES)
    return NeuronFile(manifest, own)


@torch.no_grad()
def logits(family: str, *contexts) -> torch.Tensor:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        return model(family)(INPUTS).logits


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    # Norms compute in float32, whatever the model's type.
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-7)


@settings(max_examples=40, deadline=None)
@given(st.data(), families, factors, factors, modes, modes, languages, layers)
def test_scaling_twice_is_scaling_by_the_product(data, family, first, second, outer, inner, targets, where):
    content = data.draw(neuron_files(family))

    def scaled(factor, mode):
        return Amplifier(model(family), content, Intervention("scale", factor, layers=where), mode=mode).amplified(
            *targets
        )

    twice = logits(family, scaled(first, outer), scaled(second, inner))
    assert_close(twice, logits(family, scaled(first * second, "hook")))


@settings(max_examples=40, deadline=None)
@given(st.data(), families, factors, languages, layers)
def test_folding_is_hooking(data, family, factor, targets, where):
    content = data.draw(neuron_files(family))
    intervention = Intervention("scale", factor, layers=where)
    before = {name: weight.clone() for name, weight in model(family).state_dict().items()}
    folded, hooked = (
        logits(family, Amplifier(model(family), content, intervention, mode=mode).amplified(*targets))
        for mode in ("fold", "hook")
    )
    assert_close(folded, hooked)
    assert all(torch.equal(weight, before[name]) for name, weight in model(family).state_dict().items())


@settings(max_examples=40, deadline=None)
@given(st.data(), families, factors, languages, layers)
def test_setting_leaves_nothing_of_what_was_done_before(data, family, factor, targets, where):
    """The operation done last wins: set after add, set after set."""
    content = data.draw(neuron_files(family))

    def amplified(operation, by):
        return Amplifier(model(family), content, Intervention(operation, by, layers=where)).amplified(*targets)

    alone = logits(family, amplified("set", factor))
    assert torch.equal(logits(family, amplified("add", 7.0), amplified("set", factor)), alone)
    assert torch.equal(logits(family, amplified("set", -3.0), amplified("set", factor)), alone)


@settings(max_examples=40, deadline=None)
@given(st.data(), families, factors, factors, languages, layers)
def test_adding_twice_is_adding_the_sum(data, family, first, second, targets, where):
    content = data.draw(neuron_files(family))

    def added(factor):
        return Amplifier(model(family), content, Intervention("add", factor, layers=where)).amplified(*targets)

    assert_close(logits(family, added(first), added(second)), logits(family, added(first + second)))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_properties_would_notice(family):
    """The random neurons reach the logits: a scaling by half as much is not close."""
    content = tiny.neurons(family)
    one, other = (
        logits(family, Amplifier(model(family), content, Intervention("scale", factor)).amplified("ind_Latn"))
        for factor in (3.0, 1.5)
    )
    with pytest.raises(AssertionError):
        assert_close(one, other)

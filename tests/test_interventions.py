"""What an intervention does to which neurons, worked out by hand, before any model exists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_neuron_files import language, manifest, neuron_files

from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import OPERATIONS, Intervention, plan
from lm_eval_amplify.neurons import NeuronFile


def three_languages() -> NeuronFile:
    """est and ind share neuron (1, 5), ind and tam share (2, 0)."""
    return NeuronFile(
        manifest(languages=("ind_Latn", "est_Latn", "tam_Taml", "hat_Latn")),
        {
            "ind_Latn": language([(0, 1), (1, 5), (2, 0)], max=[1, 2, 3], mean=[0.1, 0.2, 0.3]),
            "est_Latn": language([(1, 4), (1, 5)], max=[10, 20], mean=[1, 2]),
            "tam_Taml": language([(2, 0), (3, 9)], max=[100, 200], mean=[10, 20]),
            "hat_Latn": language([], max=[], mean=[]),
        },
    )


def edits(intervention: Intervention, *targets: str):
    """The plan as {(layer, neuron): (operation, value)}."""
    found = {}
    for edit in plan(intervention, three_languages(), targets):
        for index, value in zip(edit.index.tolist(), edit.value.tolist(), strict=True):
            assert (edit.layer, index) not in found
            found[edit.layer, index] = (edit.operation, pytest.approx(value))
    return found


def test_set_gives_each_neuron_factor_times_its_statistic():
    assert edits(Intervention("set", 2, "max"), "ind_Latn") == {
        (0, 1): ("set", 2), (1, 5): ("set", 4), (2, 0): ("set", 6),
    }  # fmt: skip


def test_add_and_another_statistic():
    assert edits(Intervention("add", -1, "mean"), "est_Latn") == {(1, 4): ("add", -1), (1, 5): ("add", -2)}


def test_the_constant_one_needs_no_statistic():
    assert edits(Intervention("set", 10, "one"), "est_Latn") == {(1, 4): ("set", 10), (1, 5): ("set", 10)}


def test_scale_gives_each_neuron_the_factor():
    assert edits(Intervention("scale", 2.5), "tam_Taml") == {(2, 0): ("scale", 2.5), (3, 9): ("scale", 2.5)}


def test_a_neuron_of_two_targets_is_edited_once_with_the_statistic_of_the_first():
    both = edits(Intervention("set", 1, "max"), "est_Latn", "ind_Latn")
    assert both == {(0, 1): ("set", 1), (1, 4): ("set", 10), (1, 5): ("set", 20), (2, 0): ("set", 3)}
    assert edits(Intervention("set", 1, "max"), "ind_Latn", "est_Latn")[1, 5] == ("set", 2)


def test_the_others_are_all_neurons_of_other_languages_but_the_targets_own():
    found = edits(Intervention("scale", 2, others_operation="scale", others_factor=0), "ind_Latn")
    assert found == {
        (0, 1): ("scale", 2), (1, 5): ("scale", 2), (2, 0): ("scale", 2),
        (1, 4): ("scale", 0), (3, 9): ("scale", 0),
    }  # fmt: skip


def test_the_others_keep_the_targets_neurons_even_where_the_targets_operation_is_an_identity():
    found = edits(Intervention("scale", 1, others_operation="scale", others_factor=0), "ind_Latn")
    assert found == {(1, 4): ("scale", 0), (3, 9): ("scale", 0)}


def test_the_others_use_their_own_statistic():
    found = edits(Intervention("scale", 2, "max", others_operation="set", others_factor=0.5), "est_Latn")
    assert found[2, 0] == ("set", 1.5)  # ind's, which comes first in the file
    assert found[3, 9] == ("set", 100)


def test_layers_are_chosen():
    assert set(edits(Intervention("set", 1, "max", layers="0+2-3"), "ind_Latn")) == {(0, 1), (2, 0)}
    assert edits(Intervention("set", 1, "max", layers=3), "ind_Latn") == {}


def test_a_language_without_neurons_has_no_edits():
    assert edits(Intervention("set", 1, "max"), "hat_Latn") == {}


@pytest.mark.parametrize(
    ("intervention", "identity"),
    [
        (Intervention("scale", 1), True),
        (Intervention("add", 0), True),
        (Intervention("scale", 1, others_operation="add", others_factor=0), True),
        (Intervention("scale", 1, others_operation="scale", others_factor=0), False),
        (Intervention("scale", 0), False),
        (Intervention("set", 0), False),
        (Intervention("set", 1), False),
    ],
)
def test_an_identity_is_known_as_one(intervention, identity):
    assert intervention.is_identity is identity


def test_signatures_are_equal_exactly_for_what_does_the_same():
    assert Intervention("scale", 2, "max").signature_parts == Intervention("scale", 2.0, "mean").signature_parts
    assert Intervention(layers="1+0").signature_parts == Intervention(layers="0-1").signature_parts
    different = [
        Intervention(), Intervention(factor=1.1), Intervention("add"), Intervention(statistic="mean"),
        Intervention(layers="0"), Intervention(others_operation="scale", others_factor=0.0),
    ]  # fmt: skip
    assert len({str(one.signature_parts) for one in different}) == len(different)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operation": "sett"}, r"operation=sett \(did you mean 'set'\?\): expected set, add, scale"),
        ({"factor": math.nan}, "factor=nan: expected a finite number"),
        ({"factor": math.inf}, "factor=inf"),
        ({"factor": "two"}, "factor='two': expected a finite number"),
        ({"factor": True}, "factor=True"),
        ({"factor": None}, "factor=None"),
        ({"statistic": 3}, "statistic=3"),
        ({"layers": "5-3"}, "layers=5-3: expected 'all' or layers and ranges such as 0-5"),
        ({"layers": "first"}, "layers=first"),
        ({"layers": "-1"}, "layers=-1"),
        ({"others_operation": "scale"}, "others_operation=scale needs others_factor"),
        ({"others_factor": 0}, "others_factor=0 needs others_operation=set|add|scale"),
        ({"others_operation": "off", "others_factor": 0}, "others_operation=off"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_came_and_what_is_allowed(arguments, message):
    with pytest.raises(InterventionError, match=message):
        Intervention(**arguments)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (
            Intervention(statistic="median"),
            "no statistic 'median'.*; it has max, mean and the constant 'one'",
        ),
        (Intervention(statistic="maxx"), "did you mean 'max'"),
        (Intervention(layers="2-4"), "layers=2-4: layer 4 is out of range, .* layers 0 to 3"),
    ],
)
def test_what_a_neuron_file_lacks_is_named(intervention, message):
    with pytest.raises(InterventionError, match=message):
        intervention.check_against(three_languages())


def test_a_file_without_statistics_says_what_to_do():
    imported = NeuronFile(manifest(languages=("ind_Latn",)), {"ind_Latn": language([(0, 1)])})
    with pytest.raises(InterventionError, match="it has none .*statistic=one .*operation=scale"):
        Intervention().check_against(imported)
    Intervention("scale", 2).check_against(imported)
    Intervention("set", 2, "one").check_against(imported)


@given(neuron_files(), st.sampled_from(OPERATIONS), st.sampled_from((None, *OPERATIONS)), st.data())
def test_every_neuron_of_the_targets_and_only_those_is_edited_once(content, operation, others, data):
    targets = data.draw(st.lists(st.sampled_from(content.languages), unique=True)) if content.languages else []
    factors = {"others_operation": others, "others_factor": 3.0} if others else {}
    made = plan(Intervention(operation, 3.0, "one", **factors), content, targets)
    edited = [(edit.layer, index) for edit in made for index in edit.index.tolist()]
    assert len(edited) == len(set(edited))
    languages = content.languages if others else targets
    own = [content.neurons[name] for name in languages]
    assert set(edited) == {pair for one in own for pair in zip(one.layer.tolist(), one.index.tolist(), strict=True)}
    assert all(np.isfinite(edit.value).all() for edit in made)

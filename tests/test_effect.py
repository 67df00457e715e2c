"""The check at load that an intervention does something, and what it says where it does not."""

from __future__ import annotations

import pytest
import tiny
import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import NeuronFile


def load(model=None, content=None, **arguments):
    return AmplifiedHFLM(
        model or tiny.model("llama"), tokenizer=tiny.tokenizer(), neurons=content or tiny.neurons("llama"), **arguments
    )


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "lm_eval.amplified_hf"]


def with_changed(family: str, weight: str, language: str, content: NeuronFile, value: float = 0.0):
    """A model with the rows (gate) or columns (down) of a language's neurons set to a value."""
    model = tiny.model(family)
    layers = model.transformer.h if family == "gpt2" else model.model.layers
    own = content.neurons[language]
    for layer, index in zip(own.layer.tolist(), own.index.tolist(), strict=True):
        matrix = getattr(layers[layer].mlp, weight).weight.data
        (matrix.T if weight == "down_proj" else matrix)[index] = value  # GPT-2 keeps its matrices transposed
    return model


@pytest.mark.parametrize("arguments", [{}, {"operation": "add"}, {"operation": "scale", "factor": 1.5}], ids=str)
def test_an_intervention_with_an_effect_is_not_warned_of(caplog, arguments):
    load(**arguments)
    load(language="ind_Latn+est_Latn", **arguments)
    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ({}, 1 + len(tiny.LANGUAGES)),
        ({"language": "ind_Latn+est_Latn"}, 2),
        ({"operation": "scale"}, 0),
        ({"neurons": None}, 0),
    ],
    ids=str,
)
def test_it_costs_a_forward_pass_and_one_for_each_language(monkeypatch, arguments, passes):
    calls = []
    call = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, *a, **k: calls.append(a[0].shape) or call(self, *a, **k))
    given = {"neurons": tiny.neurons("llama"), "scorer": "stock"} | arguments
    AmplifiedHFLM(tiny.model("llama"), tokenizer=tiny.tokenizer(), **given)
    assert calls == [(1, 32)] * passes


def test_the_model_is_unamplified_after_it():
    model = tiny.model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load(model, operation="scale", factor=3)
    load(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"operation": "scale"}, "scale by factor 1 changes nothing: the model runs unamplified"),
        ({"operation": "add", "factor": 0}, "add by factor 0 changes nothing: the model runs unamplified"),
    ],
    ids=str,
)
def test_an_identity_is_said_to_be_one(caplog, arguments, line):
    load(**arguments)
    assert lines(caplog) == [line]


@pytest.mark.parametrize("arguments", [{}, {"operation": "scale", "factor": 2}], ids=str)
@pytest.mark.parametrize(("family", "down"), [("llama", "down_proj"), ("gpt2", "c_proj")])
def test_neurons_that_the_down_projection_multiplies_by_zero_are_named(caplog, arguments, family, down):
    content = tiny.neurons(family)
    load(with_changed(family, down, "ind_Latn", content), content, **arguments)
    (line,) = lines(caplog)
    assert line.startswith("ind_Latn: amplifying 18 neurons changes no logit of a probe of 32 tokens: ")
    assert line.endswith("the down projection has only zeros for them")


def test_dead_neurons_are_told_from_values_that_are_there_already(caplog):
    content = tiny.neurons("llama")
    model = with_changed("llama", "gate_proj", "ind_Latn", content)  # act(0) = 0
    load(model, content, operation="scale", factor=2)
    load(model, content, operation="set", factor=0)
    load(model, content)
    dead, same = lines(caplog)
    assert dead.startswith("ind_Latn: amplifying 18 neurons changes no logit of a probe of 32 tokens: ")
    assert "their activations are zero there (dead neurons)" in dead
    assert "their activations have the values already that the intervention gives them" in same


def test_languages_without_neurons_are_named_together(caplog):
    empty = tiny.neurons("llama", per_layer=0)
    content = NeuronFile(empty.manifest, {**empty.neurons, "ind_Latn": tiny.neurons("llama").neurons["ind_Latn"]})
    load(content=content)
    others = [language for language in tiny.LANGUAGES if language != "ind_Latn"]
    assert lines(caplog) == [f"{', '.join(others)}: no neuron to amplify in layers=all of the neuron file"]

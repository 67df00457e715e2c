"""Methods other than LAPE, against stored activations."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from test_identify import BUDGET, DOCUMENTS, stored_activations
from texts import LANGUAGES, InMemory

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify import Activated, Lape, RandomChoice, Texts, identify, make_method


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny.model("qwen2")


def keys(own) -> list[tuple[int, int]]:
    return list(zip(own.layer.tolist(), own.index.tolist(), strict=True))


class TestActivated:
    @pytest.mark.parametrize("window", [16, 256])
    def test_those_active_in_all_sentences_and_those_of_the_highest_mean(
        self, model: torch.nn.Module, window: int
    ) -> None:
        texts = Texts(InMemory(DOCUMENTS), BUDGET, max_length=window, batch_size=2)
        of_all = identify(model, tiny.tokenizer(), texts, LANGUAGES, method=Activated(), statistics=())
        top = identify(model, tiny.tokenizer(), texts, LANGUAGES, method=Activated(5), statistics=())
        for language in LANGUAGES:
            stored = stored_activations(model, tiny.tokenizer(), language, window=window)
            active = np.stack([a.mean(1) > 0 for a in stored]).all(0)
            assert 0 < active.sum() < active.size
            assert keys(of_all.neurons[language]) == list(zip(*np.nonzero(active), strict=True))
            means = np.concatenate(stored, axis=1).mean(1)
            highest = np.argsort(-means.ravel())[:5]
            assert keys(top.neurons[language]) == sorted(zip(*np.unravel_index(highest, means.shape), strict=True))
        assert (top.manifest.method, top.manifest.parameters["top_k"]) == ("activation", 5)
        assert of_all.statistics == ()

    def test_one_language_will_do_and_more_neurons_than_there_are_will_not(self, model: torch.nn.Module) -> None:
        texts = Texts(InMemory(DOCUMENTS), BUDGET)
        one = identify(model, tiny.tokenizer(), texts, LANGUAGES[:1], method=Activated(3))
        assert len(one.neurons["est_Latn"]) == 3
        with pytest.raises(IdentificationError, match="top_k=121: expected no more than the model's neurons, 120"):
            identify(model, tiny.tokenizer(), texts, method=Activated(121))


def test_random_neurons_depend_on_seed_language_and_shape_alone(model: torch.nn.Module) -> None:
    def drawn(seed: int, languages: tuple[str, ...] = LANGUAGES):
        texts = Texts(InMemory(DOCUMENTS), BUDGET)
        return identify(model, tiny.tokenizer(), texts, languages, method=RandomChoice(0.1, seed), statistics=("max",))

    one, other = drawn(3), drawn(3, LANGUAGES[::-1][:2])
    assert all(len(own) == round(0.1 * tiny.LAYERS * tiny.D_FF["qwen2"]) for own in one.neurons.values())
    for language in other.languages:
        assert keys(one.neurons[language]) == keys(other.neurons[language])
    assert len({str(keys(own)) for own in [*one.neurons.values(), *drawn(4).neurons.values()]}) == 8
    assert one.statistics == ("max",)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lapse", {}, r"method=lapse \(did you mean 'lape'\?\): there are lape, activation, random"),
        ("activation", {"top_rate": 0.1}, "method activation has no parameter top_rate: it has top_k"),
        ("activation", {"top_k": 0}, "top_k=0: expected 1 or more"),
        ("random", {"seed": -1}, "seed=-1: expected 0 or above"),
        ("random", {"top_rate": 0}, "top_rate=0: expected a share"),
        ("lape", {"seed": 1}, "method lape has no parameter seed"),
    ],
)
def test_a_method_that_does_not_do_is_an_error(name: str, parameters: dict, message: str) -> None:
    with pytest.raises(IdentificationError, match=message):
        make_method(name, parameters)
    assert make_method("lape", {"top_rate": 0.1, "seed": None}) == Lape(0.1)


def test_an_unknown_statistic_is_an_error(model: torch.nn.Module) -> None:
    with pytest.raises(IdentificationError, match=r"unknown statistic 'medain' \(did you mean 'median'"):
        identify(model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), statistics=("max", "medain"))

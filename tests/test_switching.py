"""A model that is switched is one that was made so: same answers, same provenance, nothing left of before."""

from __future__ import annotations

import pytest
import tiny
import torch
from harness_runs import TYPES, requests

from lm_eval_amplify.errors import AmplifyError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models.hf import AmplifiedHFLM

LANGUAGES = ["est_Latn", "ind_Latn", "zho_Hans", "ind_Latn"]
CONDITIONS = [
    (Intervention("set", 1.5), "task"),
    (Intervention("scale", 3), "ind_Latn"),
    (Intervention("add", 1, "sentence_median", positions="generated"), "est_Latn+ind_Latn"),
    (Intervention("set", 1, "batch_p10"), "zho_Hans"),
    (None, "task"),
]


def made(family: str, **arguments) -> AmplifiedHFLM:
    return AmplifiedHFLM(tiny.model(family), tokenizer=tiny.tokenizer(), batch_size=2, **arguments)


def parts(intervention: Intervention) -> dict:
    return {name: value for name, value in vars(intervention).items() if value is not None}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_switched_model_answers_as_one_that_was_made_so(family, kind):
    neurons = tiny.neurons(family)
    lm = made(family)
    asked = requests(kind, LANGUAGES)
    for intervention, language in [*CONDITIONS, *reversed(CONDITIONS)]:
        own = {} if intervention is None else {"neurons": neurons, "language": language, **parts(intervention)}
        lm.switch(intervention, None if intervention is None else neurons, language)
        alone = made(family, **own)
        found, expected = (getattr(one, kind)(asked, disable_tqdm=True) for one in (lm, alone))
        if kind == "generate_until":
            assert found == expected
        else:
            values = [one[0] if isinstance(one, tuple) else one for one in found]
            assert values == pytest.approx([one[0] if isinstance(one, tuple) else one for one in expected], abs=1e-4)
        assert lm.provenance == alone.provenance


def test_nothing_is_left_of_an_intervention_after_the_switch():
    lm = made("llama")
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    for intervention, language in CONDITIONS:
        lm.switch(intervention, None if intervention is None else tiny.neurons("llama"), language)
        lm.loglikelihood(requests("loglikelihood", LANGUAGES), disable_tqdm=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


def test_a_switch_that_is_refused_changes_nothing():
    lm = made("llama", neurons=tiny.neurons("llama"), language="ind_Latn", factor=2)
    provenance, amplifier = lm.provenance, lm.amplifier
    for intervention, neurons, language in [
        (Intervention(statistic="p90"), tiny.neurons("llama"), "task"),  # not in the file
        (Intervention(), tiny.neurons("qwen2"), "task"),  # of another shape
        (Intervention(), tiny.neurons("llama"), "rus_Cyrl"),
    ]:
        with pytest.raises(AmplifyError):
            lm.switch(intervention, neurons, language)
    assert lm.provenance == provenance
    assert lm.amplifier is amplifier


def test_unamplified_answers_are_kept_and_amplified_ones_are_not():
    neurons = tiny.neurons("llama")
    lm = made("llama", neurons=neurons, operation="scale", factor=3)
    both = [f"loglikelihood_{side}" for side in ("amplified", "unamplified")]
    passes = []
    lm.model.register_forward_hook(lambda *_: passes.append(1))

    def answers() -> list:
        found = [getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True) for kind in both]
        return [[one[0] for one in side] for side in found]

    amplified, unamplified = answers()
    lm.switch(Intervention("scale", 5), neurons, "task")
    passes.clear()
    switched, again = answers()
    assert again == unamplified
    assert switched != amplified
    number = len(passes)
    passes.clear()
    lm.switch(Intervention("scale", 3), neurons, "task")
    passes.clear()
    back, _ = answers()
    assert back == amplified
    assert 0 < len(passes) <= number  # the amplified side is scored anew


def test_packed_scoring_is_tried_under_the_first_amplification(caplog):
    lm = made("llama")
    engine = lm._engine
    lm.switch(Intervention("set", 1, "batch_p10"), tiny.neurons("llama"), "task")
    assert (lm.scorer, lm._engine) == ("stock", engine)  # statistics of the running input are scored the stock way
    lm.switch(Intervention(), tiny.neurons("llama"), "task")
    assert lm.scorer == "packed"
    assert lm._engine is not engine
    tried = lm._engine
    lm.switch(Intervention("scale", 2), tiny.neurons("llama"), "ind_Latn")
    assert lm._engine is tried  # once is enough
    assert "no neurons=<file> given" in caplog.text


def test_kept_encodings_are_those_that_are_made_anew():
    lm = made("llama", neurons=tiny.neurons("llama"), language="ind_Latn", factor=2)
    expected = [getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True) for kind in TYPES]
    encoded = []
    encode = lm._encoded

    def counted(texts, options):
        encoded.extend(texts)
        return encode(texts, options)

    lm._encoded = counted
    lm.keep_encodings()
    for _ in range(2):
        assert [getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True) for kind in TYPES] == expected
    assert encoded
    assert len(encoded) == len(set(encoded))  # each once in two rounds


def test_of_many_factors_the_first_is_tried_for_an_effect(caplog):
    model = tiny.model("llama")
    for block in model.model.layers:
        torch.nn.init.zeros_(block.mlp.down_proj.weight)  # no neuron does anything
    lm = AmplifiedHFLM(model, tokenizer=tiny.tokenizer(), batch_size=2)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    for operation, factor, tried in [("set", 1, True), ("set", 2, False), ("add", 2, True), ("set", 0.5, False)]:
        lm._engine, lm._is_probed_amplified = None, True
        passes.clear()
        caplog.clear()
        lm.switch(Intervention(operation, factor), tiny.neurons("llama"), "task")
        assert bool(passes) == ("changes no logit" in caplog.text) == tried

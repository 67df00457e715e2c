"""Ctrl-C in the middle of a run: the model is unamplified afterwards, and the object as good as new."""

from __future__ import annotations

import pytest
import tiny
import torch
from harness_runs import TYPES, requests

from lm_eval_amplify.models.hf import AmplifiedHFLM

LANGUAGES = ["est_Latn", "ind_Latn", "zho_Hans", "ind_Latn", "zho_Hans", "est_Latn"]


@pytest.mark.parametrize("operation", ["set", "scale"])  # by hooks, and folded into weights
@pytest.mark.parametrize("kind", [*TYPES, "loglikelihood_amplified", "generate_until_amplified"])
def test_an_interrupted_run_leaves_the_model_unamplified_and_the_object_usable(kind, operation):
    lm = AmplifiedHFLM(
        tiny.model("llama"), tokenizer=tiny.tokenizer(), neurons=tiny.neurons("llama"), operation=operation, factor=3
    )
    assert lm.amplifier.mode == {"set": "hook", "scale": "fold"}[operation]
    right = getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True)
    lm._remembered.clear()
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    cache_hook, amplified = lm.cache_hook, []
    enter = lm.amplified_as

    def note(targets):
        amplified.append(targets)
        return enter(targets)

    def interrupt(*_):
        if len(amplified) == 2:  # within the second language's forward pass
            raise KeyboardInterrupt

    lm.amplified_as = note
    stopping = lm.model.model.layers[1].mlp.up_proj.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True)
    stopping.remove()
    lm.amplified_as = enter

    assert amplified == [("est_Latn",), ("ind_Latn",)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())
    assert lm.cache_hook is cache_hook
    assert getattr(lm, kind)(requests(kind, LANGUAGES), disable_tqdm=True) == right

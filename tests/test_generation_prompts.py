"""Prompts read by packed rows leave what a padded pass leaves, and compute what they share once."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch
from generating import answers, mixed, request, stock
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from lm_eval_amplify.generation.prompts import PackedPrompts
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.scoring.forward import Forward

FAMILIES = ["llama", "qwen2", "gpt2"]  # Gemma 2 has a window
SHOTS = "Inggris: The man opened the tap.\nIndonesia: Pria itu membuka keran.\n"


@functools.cache
def model(family):
    return tiny.model(family)


def padded(prompts):
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(one)) + one for one in prompts])
    return ids, torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in prompts])


def read(family, prompts):
    ids, mask = padded(prompts)
    cache = DynamicCache(config=model(family).config)
    state = {"attention_mask": mask, "cache": cache, "use_cache": True}
    return PackedPrompts(Forward(model(family), torch.device("cpu"))).read(ids, state), cache, ids, mask


TOKENS = st.lists(st.integers(1, 399), min_size=1, max_size=12)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 399), min_size=9, max_size=30), st.lists(TOKENS, min_size=2, max_size=6), st.data())
def test_logits_and_cache_are_those_of_a_padded_pass(family, shared, ends, data):
    prompts = [shared + end for end in ends]
    prompts += data.draw(st.lists(st.sampled_from([*prompts, shared, shared[:3]]), max_size=3))
    logits, cache, ids, mask = read(family, prompts)
    assert logits is not None
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        plain = model(family)(ids, attention_mask=mask, position_ids=positions, use_cache=True)
    assert torch.allclose(logits[:, 0], plain.logits[:, -1], atol=1e-4)
    for own, expected in zip(cache.layers, plain.past_key_values.layers, strict=True):
        for name in ("keys", "values"):
            mine, theirs = (getattr(layer, name).transpose(1, 2)[mask.bool()] for layer in (own, expected))
            assert torch.allclose(mine, theirs, atol=1e-4)


def test_what_prompts_share_is_computed_once():
    computed = []
    layer = model("llama").model.layers[0]
    handle = layer.register_forward_hook(lambda _m, arguments, _o: computed.append(arguments[0].shape[:2].numel()))
    logits, *_ = read("llama", [[*range(1, 41), 100 + n] for n in range(8)])
    handle.remove()
    assert logits.shape[:2] == (8, 1)
    assert sum(computed) == 40 + 8


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("amplified", [False, True])
def test_texts_are_those_of_hf(family, amplified, monkeypatch):
    reads = []
    plain = PackedPrompts.read
    monkeypatch.setattr(PackedPrompts, "read", lambda *given_: reads.append(plain(*given_)) or reads[-1])
    made = mixed() + [request(f"{SHOTS}{one.args[0]}", until=["\n"], max_gen_toks=8) for one in mixed()[:7]]
    given_ = {"neurons": tiny.neurons(family), "factor": 3, "language": "ind_Latn"} if amplified else {}
    lm = AmplifiedHFLM(model(family), tokenizer=tiny.tokenizer(), batch_size=5, **given_)
    alone = AmplifiedHFLM(model(family), tokenizer=tiny.tokenizer(), batch_size=1, scorer="stock", **given_)
    expected = answers(alone if amplified else stock(model(family)), made)
    assert answers(lm, made) == expected
    assert any(one is not None for one in reads) == (family in FAMILIES)


def test_a_prompt_whose_logits_are_not_finite_spoils_no_other():
    broken = tiny.model("llama")
    broken.model.embed_tokens.weight.data[399] = torch.nan
    prompts = PackedPrompts(Forward(broken, torch.device("cpu")))
    ids, mask = padded([[*range(1, 21), 7], [*range(1, 21), 399], [*range(1, 21), 8, 9]])
    cache = DynamicCache(config=broken.config)
    assert prompts.read(ids, {"attention_mask": mask, "cache": cache}) is None
    assert cache.get_seq_length() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"attention_mask": None},
        {"attention_mask": torch.tensor([[1, 1, 0]] * 2)},  # padded on the right
        {"token_type_ids": torch.zeros(2, 3, dtype=torch.long)},
        {"position_ids": torch.zeros(3, 2, 3, dtype=torch.long)},
        {"cache": None},
    ],
)
def test_what_is_not_understood_is_left_to_a_padded_pass(change):
    prompts = PackedPrompts(Forward(model("llama"), torch.device("cpu")))
    ids, mask = padded([[1, 2, 3], [1, 2, 3]])
    state = {"attention_mask": mask, "cache": DynamicCache(config=model("llama").config)}
    assert prompts.read(ids, state | change) is None
    assert prompts.read(ids, state) is not None

"""Every architecture of transformers that generates gives HFLM's tokens in our loop, or is left to HFLM's."""

from __future__ import annotations

import contextlib
import logging

import matrix
import pytest
import transformers
from every_architecture import VOCABULARY, architectures, build
from generating import answers, own, request, why_not
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers

from lm_eval_amplify.architecture import find_feed_forwards
from lm_eval_amplify.errors import ArchitectureError
from lm_eval_amplify.models.hf import AmplifiedHFLM

# What must not be left to HFLM's loop, whatever version of transformers is installed.
OWN = set(
    "LlamaForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM MistralForCausalLM GemmaForCausalLM Gemma2ForCausalLM "
    "Gemma3ForCausalLM Gemma3ForConditionalGeneration Phi3ForCausalLM Olmo2ForCausalLM CohereForCausalLM "
    "SmolLM3ForCausalLM GraniteForCausalLM BloomForCausalLM OPTForCausalLM GPT2LMHeadModel GPTNeoXForCausalLM "
    "FalconForCausalLM PhiForCausalLM Starcoder2ForCausalLM MptForCausalLM GPTJForCausalLM XGLMForCausalLM "
    "BioGptForCausalLM LlavaForConditionalGeneration Qwen2VLForConditionalGeneration "
    "Qwen3VLForConditionalGeneration Qwen3MoeForCausalLM MixtralForCausalLM".split()
)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w40"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w0", pad_token="w1", eos_token="w2")


# Prompts of several lengths, of tokens that are no images; what is generated often has the words that end it.
REQUESTS = [
    request(" ".join(f"w{30 + 7 * i * length % 31}" for i in range(length)), until=["w35", "w5"], max_gen_toks=6)
    for length in (3, 9, 5, 1)
]


@pytest.mark.parametrize("architecture", architectures(), ids=lambda one: one.name)
def test_an_architecture_generates_what_it_generates_in_hfs_loop(architecture, caplog):
    try:
        model = build(architecture)
    except Exception:  # noqa: BLE001  # the page about architectures says what is not built
        assert architecture.name not in OWN
        return
    with contextlib.suppress(ArchitectureError):
        matrix._enlarge(model, find_feed_forwards(model))
    own_tokenizer = tokenizer()
    try:
        # The token at which HFLM ends a row of a batch by itself, so that a batch's texts are those of its rows alone.
        model.generation_config.eos_token_id = own_tokenizer.eos_token_id
        expected = answers(HFLM(model, tokenizer=own_tokenizer, batch_size=4), REQUESTS)
    except Exception:  # noqa: BLE001  # it does not generate from text alone, or not in batches
        assert architecture.name not in OWN
        return
    caplog.set_level(logging.INFO, logger="lm_eval.amplified_hf")
    lm = own(model, batch_size=4, tokenizer=own_tokenizer)
    assert answers(lm, REQUESTS) == expected
    reasons = why_not(caplog.records)
    if not reasons:  # with its prompts in packed rows, where the probe finds that it can
        try:
            packed = AmplifiedHFLM(model, tokenizer=own_tokenizer, batch_size=4)
        except Exception:  # noqa: BLE001  # it does not score text alone
            assert architecture.name not in OWN
            return
        assert answers(packed, REQUESTS) == expected
    assert len(reasons) <= 1
    if architecture.name in OWN:
        assert reasons == []

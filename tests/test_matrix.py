"""Every architecture of transformers is amplified right or refused, never amplified wrong."""

from __future__ import annotations

import matrix
import pytest
import transformers
from every_architecture import architectures

# What must not end up among the refused, whatever version of transformers is installed.
SUPPORTED = set(
    "LlamaForCausalLM Qwen2ForCausalLM Qwen3ForCausalLM MistralForCausalLM GemmaForCausalLM Gemma2ForCausalLM "
    "Gemma3ForCausalLM Gemma3ForConditionalGeneration Phi3ForCausalLM Olmo2ForCausalLM CohereForCausalLM "
    "SmolLM3ForCausalLM GraniteForCausalLM FalconH1ForCausalLM BloomForCausalLM OPTForCausalLM GPT2LMHeadModel "
    "GPTNeoXForCausalLM FalconForCausalLM PhiForCausalLM Starcoder2ForCausalLM MptForCausalLM GPTJForCausalLM "
    "XGLMForCausalLM BioGptForCausalLM Lfm2ForCausalLM LlavaForConditionalGeneration T5ForConditionalGeneration "
    "MT5ForConditionalGeneration BartForConditionalGeneration MBartForConditionalGeneration".split()
)


@pytest.fixture(scope="module", autouse=True)
def quiet():
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


@pytest.mark.parametrize("architecture", architectures(), ids=lambda one: one.name)
def test_an_architecture_is_amplified_right_or_refused(architecture):
    outcome = matrix.examine(architecture)
    if architecture.name in SUPPORTED:
        assert outcome.status == "supported", outcome.reason
    if outcome.status == "refused":
        assert outcome.reason.startswith(f"{architecture.name} ")
        assert "\n" not in outcome.reason


def test_the_page_about_architectures_is_what_the_tests_found():
    page = matrix.DOCUMENT.read_text()
    if matrix.made_with_installed(page):
        outcomes = [matrix.examine(architecture) for architecture in architectures()]
        assert page == matrix.render(outcomes), "write the page anew: python tests/matrix.py"

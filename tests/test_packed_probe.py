"""What a model can do is found by trying, part by part, and said in one line."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import tiny
import torch
import transformers
from every_architecture import Architecture, architectures, build
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.scoring.engine import Abilities
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.probe import attention_window, probe


def architecture(name: str) -> Architecture:
    return next(one for one in architectures() if one.name == name)


def found(model):
    @torch.no_grad()
    def plain(ids):
        return model(ids).logits

    forward = Forward(model, torch.device("cpu"))
    config = model.config.get_text_config()
    return probe(forward, plain, [nullcontext], vocabulary=64, max_length=64, config=config)


@pytest.mark.parametrize(
    ("name", "abilities", "reason"),
    [
        ("LlamaForCausalLM", Abilities(trees=True, cache=True), None),
        ("OPTForCausalLM", Abilities(trees=True, cache=True), None),  # has positions from its attention mask
        ("BloomForCausalLM", Abilities(trees=False, cache=False), "contexts are not shared ("),  # ALiBi
        ("MambaForCausalLM", Abilities(trees=False, cache=False), "contexts are not shared ("),  # recurrent
        ("XLNetLMHeadModel", None, "HFLM scores (log-probabilities differ by"),  # sees later tokens
    ],
)
def test_each_part_falls_back_by_itself(name, abilities, reason):
    finding = found(build(architecture(name)))
    assert finding.abilities == abilities
    assert len(finding.reasons) == (reason is not None)
    if reason:
        assert finding.reasons[0].startswith(reason)


def test_a_model_that_ignores_positions_is_found_out():
    model = tiny.model("llama")
    forward = model.model.forward

    def without_positions(*args, position_ids=None, **options):
        return forward(*args, **options)

    model.model.forward = without_positions
    abilities, (reason,) = found(model)
    assert not abilities.trees
    assert reason.startswith("contexts are not shared (log-probabilities differ by")


def test_a_model_whose_cache_fails_computes_prefixes_again():
    model = tiny.model("llama")
    forward = model.model.forward

    def without_cache(*args, **options):
        if any(options.get(name) is not None for name in ("cache", "past_key_values")):  # renamed in transformers 5.24
            raise NotImplementedError("no cache here")
        return forward(*args, **options)

    model.model.forward = without_cache
    abilities, reasons = found(model)
    assert abilities == Abilities(trees=True, cache=False)
    assert reasons == ("a prefix is computed again in each row (NotImplementedError: no cache here)",)


def test_a_model_that_is_right_only_unamplified_is_found_out():
    """The probe looks under the intervention too."""
    model = tiny.model("llama")
    amplified = [False]

    class Amplified:
        def __enter__(self):
            amplified[0] = True

        def __exit__(self, *_):
            amplified[0] = False

    forward = model.model.forward
    model.model.forward = lambda *args, position_ids=None, **options: forward(
        *args, **options | ({} if amplified[0] else {"position_ids": position_ids})
    )

    @torch.no_grad()
    def plain(ids):
        return model(ids).logits

    given = {"vocabulary": 64, "max_length": 64, "config": model.config}
    run = Forward(model, torch.device("cpu"))
    assert probe(run, plain, [nullcontext], **given).abilities.trees
    assert not probe(run, plain, [nullcontext, Amplified], **given).abilities.trees


def test_a_head_that_is_no_module_is_left_alone_and_said():
    model = tiny.model("llama")
    model.get_output_embeddings = lambda: None
    abilities, reasons = found(model)
    assert abilities.trees
    assert reasons == ("logits are computed at all positions (its LM head is not a module of its own)",)


@pytest.mark.parametrize(
    ("fields", "window"),
    [
        ({"sliding_window": 512}, 512),
        ({"sliding_window": None, "max_window_layers": 4}, None),
        ({"attention_chunk_size": 64, "sliding_window": 128}, 64),
        ({"window_size": 256}, 256),
        ({"chunk_size_feed_forward": 3, "sliding_window": 0}, None),
    ],
)
def test_an_attention_window_is_read_from_the_configuration(fields, window):
    config = transformers.PretrainedConfig()
    for name, value in fields.items():
        setattr(config, name, value)
    assert attention_window(config) == window


def test_one_line_says_which_part_falls_back_and_why(caplog):
    config = transformers.BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4)
    model = transformers.BloomForCausalLM(config).eval()
    lm = AmplifiedHFLM(model, tokenizer=tiny.tokenizer(), batch_size=3)
    (line,) = (record.getMessage() for record in caplog.records if "scorer" in record.getMessage())
    assert line.startswith("scorer=packed, BloomForCausalLM: contexts are not shared (")
    assert lm.scorer == "packed"
    stock = HFLM(model, tokenizer=tiny.tokenizer(), batch_size=3)
    made = [(("", ""), list(range(20)), [7, n]) for n in range(8)]
    ours, theirs = (one._loglikelihood_tokens(made, disable_tqdm=True) for one in (lm, stock))
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], rel=1e-6, abs=1e-4)


def test_an_encoder_decoder_is_scored_by_the_harness(caplog):
    model = build(architecture("T5ForConditionalGeneration"))
    lm = AmplifiedHFLM(model, tokenizer=tiny.tokenizer(), backend="seq2seq")
    assert lm.scorer == "stock"
    assert lm.get_model_info()["amplify"]["scorer"] == "stock"
    (line,) = (record.getMessage() for record in caplog.records if "scorer" in record.getMessage())
    assert line == "scorer=packed: HFLM scores (an encoder-decoder has no context that options share)"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_packed_too(dtype):
    """Their rounding is far less than what ignoring masks or positions would do."""
    lm = AmplifiedHFLM(tiny.model("llama").to(dtype), tokenizer=tiny.tokenizer(), neurons=tiny.neurons("llama"))
    assert lm._engine.abilities == Abilities(trees=True, cache=True)

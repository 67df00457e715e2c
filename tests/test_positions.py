"""Interventions at some positions of the input equal forwards changed by hand there, and touch nothing else."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import tiny
import torch
import transformers
from positions_by_hand import ByHand, activations
from test_amplifier import INPUTS, INTERVENTIONS, assert_untouched, bits, changed_by_hand, logits

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.architecture import find_feed_forwards
from lm_eval_amplify.errors import ArchitectureError, InterventionError
from lm_eval_amplify.intervention import POSITIONS, Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

MASK = torch.tensor([[False, True, True, False, False, True], [True, False, False, True, False, False]])
PROMPTS = [[5, 9, 300], [7, 12, 250, 33, 21, 90, 11], [44]]


@contextmanager
def changed_at(mask, model, content, intervention):
    """Every scalar changed by its definition, and the others put back, bool ``[rows, pos]``."""
    handles = []
    for layer, module in enumerate(activations(model)):

        def change(_module, _inputs, output, layer=layer):
            changed = changed_by_hand(output, layer, content, "ind_Latn", intervention)
            return torch.where(mask.unsqueeze(-1), changed, output)

        handles.append(module.register_forward_hook(change))
    yield
    for handle in handles:
        handle.remove()


def left_padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[1] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def generate(model, amplifier, rows, tokens=5, **options):
    """What is generated from each row, as tokens."""
    inputs = left_padded(rows)
    with amplifier.amplified("ind_Latn"), amplifier.generating(inputs["attention_mask"]):
        written = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=None, **options)
    return written[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_intervention_at_positions_equals_a_forward_changed_by_hand(family, intervention):
    model, content = tiny.model(family), tiny.neurons(family)
    amplifier = Amplifier(model, content, replace(intervention, positions="prompt"))
    with amplifier.amplified("ind_Latn"), amplifier.on(MASK):
        amplified = logits(model)
    with changed_at(MASK, model, content, intervention):
        torch.testing.assert_close(amplified, logits(model), atol=2e-5, rtol=1e-5)
    with Amplifier(model, content, intervention, mode="hook").amplified("ind_Latn"):
        assert not torch.allclose(amplified, logits(model), atol=1e-3)


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=str)
def test_at_some_positions_and_at_the_rest_compose_to_all(intervention):
    model, content = tiny.model("qwen2"), tiny.neurons("qwen2")
    prompt, generated = (Amplifier(model, content, replace(intervention, positions=p)) for p in ("prompt", "generated"))
    with prompt.amplified("ind_Latn"), prompt.on(MASK), generated.amplified("ind_Latn"), generated.on(~MASK):
        composed = logits(model)
    with Amplifier(model, content, intervention, mode="hook").amplified("ind_Latn"):
        assert torch.equal(composed, logits(model))


def test_without_a_mask_it_acts_everywhere():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    with Amplifier(model, content, Intervention("add")).amplified("ind_Latn"):
        everywhere = logits(model)
    amplifier = Amplifier(model, content, Intervention("add", positions="generated"))
    with amplifier.amplified("ind_Latn"), amplifier.on(None):
        assert torch.equal(logits(model), everywhere)


@pytest.mark.parametrize("operation", ["set", "add", "scale"])
def test_other_neurons_and_other_positions_are_bit_identical_at_the_site(operation):
    model, content = tiny.model("gemma2"), tiny.neurons("gemma2")
    amplifier = Amplifier(model, content, Intervention(operation, 2, "one", positions="prompt"))
    own = content.neurons["ind_Latn"]
    chosen = torch.zeros(*MASK.shape, tiny.D_FF["gemma2"], dtype=torch.bool)
    chosen[..., torch.from_numpy(own.index[own.layer == 0]).long()] = True
    chosen &= MASK.unsqueeze(-1)
    seen = []
    module = activations(model)[0]
    before = module.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with amplifier.amplified("ind_Latn"), amplifier.on(MASK):
        after = module.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
        logits(model)
    before.remove()
    after.remove()
    plain, changed = seen
    assert torch.equal(changed[~chosen], plain[~chosen])
    assert (changed[chosen] != plain[chosen]).all()


# Generation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["set", "add", "scale"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_generation_amplifies_its_positions_with_and_without_a_cache(family, positions, operation):
    """A left-padded batch of mixed lengths writes what each prompt alone does, recomputed whole for every token."""
    model, content = tiny.model(family), tiny.neurons(family)
    intervention = Intervention(operation, 4, positions=positions)
    by_hand = ByHand(model, content, intervention)
    expected = [by_hand.greedy(prompt, 5) for prompt in PROMPTS]
    amplifier = Amplifier(model, content, intervention)
    assert generate(model, amplifier, PROMPTS) == expected
    assert generate(model, amplifier, PROMPTS, use_cache=False) == expected
    assert generate(model, amplifier, PROMPTS, prefill_chunk_size=2) == expected
    assert [generate(model, amplifier, [prompt])[0] for prompt in PROMPTS] == expected


def test_the_last_prompt_position_is_generated_and_the_one_before_is_not():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    plain = logits(model)
    inputs = {"input_ids": INPUTS, "attention_mask": torch.ones_like(INPUTS)}
    for positions, is_changed in (("prompt", [True] * 5 + [True]), ("generated", [False] * 5 + [True])):
        amplifier = Amplifier(model, content, Intervention("set", 3, positions=positions))
        with amplifier.amplified("ind_Latn"), amplifier.generating(inputs["attention_mask"]), torch.no_grad():
            now = model(**inputs).logits
        assert [not torch.equal(now[:, n], plain[:, n]) for n in range(6)] == is_changed


def test_beams_and_several_answers_to_a_prompt_are_amplified_like_one():
    model, content = tiny.model("gpt2"), tiny.neurons("gpt2")
    for positions in ("prompt", "generated"):
        amplifier = Amplifier(model, content, Intervention("set", 2, positions=positions))
        together = generate(model, amplifier, PROMPTS, num_beams=3, num_return_sequences=3)
        alone = [generate(model, amplifier, [one], num_beams=3, num_return_sequences=3) for one in PROMPTS]
        assert together == [answer for answers in alone for answer in answers]
        uncached = generate(model, amplifier, PROMPTS, num_beams=3, num_return_sequences=3, use_cache=False)
        assert uncached == together


def test_a_prompt_of_one_token_is_generated_from_like_others():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    for positions in POSITIONS:
        intervention = Intervention("add", 3, positions=positions)
        amplifier = Amplifier(model, content, intervention)
        assert generate(model, amplifier, [[44]]) == [ByHand(model, content, intervention).greedy([44], 5)]


# Other architectures ------------------------------------------------------------------------------------------------


def neurons_of(model) -> NeuronFile:
    """The first eight neurons of every layer."""
    layers = len(find_feed_forwards(model))
    layer, index = torch.meshgrid(torch.arange(layers).int(), torch.arange(8).int(), indexing="ij")
    own = LanguageNeurons(layer.flatten().numpy(), index.flatten().numpy())
    manifest = Manifest(num_layers=layers, method="random", package_version="0", languages=("ind_Latn",))
    return NeuronFile(manifest, {"ind_Latn": own})


def test_activations_without_a_dimension_for_rows_are_amplified_at_their_positions():
    """OPT's are ``[batch * pos, d_ff]``."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        vocab_size=400, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, init_std=0.2,
    )  # fmt: skip
    model = transformers.OPTForCausalLM(config).eval()
    plain = logits(model)
    amplifier = Amplifier(model, neurons_of(model), Intervention("set", 3, "one", positions="generated"))
    with amplifier.amplified("ind_Latn"), amplifier.on(torch.arange(6).expand(2, 6) >= 4):
        one, other = logits(model), logits(model, INPUTS[1:].expand(2, 6))
    assert [not torch.equal(one[:, n], plain[:, n]) for n in range(6)] == [False] * 4 + [True] * 2
    torch.testing.assert_close(other[0], one[1])
    together = generate(model, amplifier, PROMPTS)
    assert together == [generate(model, amplifier, [prompt], use_cache=False)[0] for prompt in PROMPTS]


def t5():
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 400}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0)).eval()


def test_of_an_encoder_decoder_the_encoder_is_the_prompt_and_the_decoder_is_generated():
    model = t5()
    content = neurons_of(model)

    def run(**arguments):
        with Amplifier(model, content, Intervention("set", 3, "one", **arguments)).amplified("ind_Latn"):
            return model(input_ids=INPUTS, labels=INPUTS).logits.detach()

    assert torch.equal(run(positions="prompt"), run(layers="0-1"))
    assert torch.equal(run(positions="generated"), run(layers="2-3"))
    assert not torch.equal(run(positions="generated"), run())
    with pytest.raises(
        ArchitectureError, match="T5ForConditionalGeneration is an encoder-decoder: statistic=batch_max"
    ):
        Amplifier(model, content, Intervention(statistic="batch_max"))


def test_an_architecture_whose_activations_are_in_another_order_is_refused():
    """XLNet's are ``[pos, batch, d_ff]``."""
    config = transformers.XLNetConfig(vocab_size=400, d_model=32, n_layer=2, n_head=4, d_inner=48)
    model = transformers.XLNetLMHeadModel(config).eval()
    Amplifier(model, neurons_of(model), Intervention("scale", 3))
    with pytest.raises(ArchitectureError, match="XLNetLMHeadModel .*: it cannot be amplified at chosen positions"):
        Amplifier(model, neurons_of(model), Intervention("scale", 3, positions="prompt"))


# What is left behind, and what is refused ---------------------------------------------------------------------------


def stop(error: type[BaseException], was_right: bool):
    assert was_right
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_survives_an_exception(error):
    model = tiny.model("qwen2")
    before, plain = bits(model), logits(model)
    amplifier = Amplifier(model, tiny.neurons("qwen2"), Intervention("set", 3, positions="generated"))
    for tell in (lambda: amplifier.on(MASK), lambda: amplifier.generating(torch.ones(2, 6))):
        with pytest.raises(error), amplifier.amplified("ind_Latn"), tell():
            stop(error, not torch.equal(logits(model), plain) and amplifier.is_acting)
        assert_untouched(model, before)
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert not amplifier.is_acting
        with pytest.raises(InterventionError, match="say which positions"), amplifier.amplified("ind_Latn"):
            logits(model)


def test_a_pass_that_nobody_told_the_positions_of_is_refused():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    amplifier = Amplifier(model, content, Intervention(positions="prompt"))
    line = r"positions=prompt: say which positions are the prompt's, within Amplifier.generating\(attention_mask\)"
    with amplifier.amplified("ind_Latn"), pytest.raises(InterventionError, match=line):
        logits(model)
    amplifier = Amplifier(model, content, Intervention(statistic="batch_max"))
    with amplifier.amplified("ind_Latn"), amplifier.on(MASK), pytest.raises(InterventionError, match="needs prompt="):
        logits(model)


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (torch.ones(3, 6), r"activation of shape \(2, 6, 48\) for a mask of shape \(3, 6\)"),
        (torch.ones(2, 5), r"activation of shape \(2, 6, 48\) for a mask of shape \(2, 5\)"),
        (torch.ones(12), r"masks of shape \(12,\): expected \[batch, positions\]"),
    ],
)
def test_a_mask_of_another_shape_is_refused(mask, line):
    model = tiny.model("llama")
    amplifier = Amplifier(model, tiny.neurons("llama"), Intervention(positions="prompt"))
    with pytest.raises(InterventionError, match=line), amplifier.amplified("ind_Latn"), amplifier.on(mask):
        logits(model)


def test_rows_that_are_not_the_prompts_are_refused():
    model = tiny.model("llama")
    amplifier = Amplifier(model, tiny.neurons("llama"), Intervention(positions="prompt"))
    told = amplifier.generating(torch.ones(3, 6))
    with amplifier.amplified("ind_Latn"), told, pytest.raises(InterventionError, match="in 2 rows from 3 prompts"):
        logits(model)


def test_weights_cannot_be_folded_for_some_positions():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    assert Amplifier(model, content, Intervention("scale", 2, positions="prompt")).mode == "hook"
    with pytest.raises(InterventionError, match="mode=fold with positions=prompt: weights act at every position"):
        Amplifier(model, content, Intervention("scale", 2, positions="prompt"), mode="fold")
    folded = Amplifier(model, content, Intervention("scale", 2))
    with pytest.raises(InterventionError, match="folded act at every position"), folded.on(MASK):
        pass

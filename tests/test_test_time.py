"""Statistics of the running input, and the presets, are what a forward changed by hand gives."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from positions_by_hand import STATISTICS, ByHand
from test_positions import PROMPTS, generate

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import TEST_TIME, Intervention
from lm_eval_amplify.positions import Pass, told
from lm_eval_amplify.presets import PRESETS, make_intervention
from lm_eval_amplify.test_time import statistic_of

CONTENT = tiny.neurons("qwen2", statistics=("max", "sentence_max", "sentence_median"))
INTERVENTIONS = {name: make_intervention(preset=name) for name in PRESETS} | {
    "add batch_median": Intervention("add", 2.0, "batch_median"),
    "set batch_p90 at generated": Intervention("set", -1.5, "batch_p90", positions="generated"),
    "add batch_mean at prompt": Intervention("add", 9.0, "batch_mean", positions="prompt"),
    "add batch_max, others": Intervention("add", 0.5, "batch_max", others_operation="set", others_factor=-0.5),
    "running_max of others": Intervention("scale", 3.0, "running_max", others_operation="set", others_factor=0.5),
    "add running_max at generated": Intervention("add", 0.5, "running_max", positions="generated"),
}


def padded(rows: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and which are real."""
    longest = max(map(len, rows))
    pads = [[1] * (longest - len(row)) for row in rows]
    ids = [pad + row if side == "left" else row + pad for pad, row in zip(pads, rows, strict=True)]
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    at = torch.arange(longest)
    return torch.tensor(ids), at >= longest - lengths if side == "left" else at < lengths


# The statistics by themselves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEST_TIME)
def test_a_statistic_is_of_the_prompts_real_tokens_of_its_own_sequence(name):
    """Prompts from 1 to 4 of 5 positions; what lies outside them is so large that any of it would show."""
    activation = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 7))).float()
    spans = [(0, 4), (2, 5), (3, 4)]  # padding on the right, on the left, on both sides
    prompt = torch.zeros(3, 5, dtype=torch.bool)
    for row, (start, end) in enumerate(spans):
        prompt[row, start:end] = True
    noisy = torch.where(prompt.unsqueeze(-1), activation, 1e9)
    found = statistic_of(name, noisy, told(None, prompt), 0, {})
    for row, (start, end) in enumerate(spans):
        own = activation[row, start:end].numpy()
        if name == "running_max":
            expected = [own[: place + 1].max() for place in range(end - start)]
            np.testing.assert_allclose(found[row, start:end, 0], expected, rtol=1e-6)
        else:
            np.testing.assert_allclose(found[row], [[STATISTICS[name](own)]], rtol=1e-5, atol=1e-7)


def test_quantiles_are_those_of_torch_whatever_the_number_of_values():
    generator = torch.Generator().manual_seed(0)
    for width in range(1, 24):
        distinct = torch.randn(1, 1, width, generator=generator)
        real = told(None, torch.ones(1, 1))
        for values in (distinct, distinct.round()):  # of the latter some are equal
            for name, share in (("batch_p10", 0.1), ("batch_median", 0.5), ("batch_p90", 0.9)):
                torch.testing.assert_close(statistic_of(name, values, real, 0, {}).squeeze(), values.quantile(share))


def test_with_a_cache_the_batch_keeps_its_value_and_the_running_maximum_goes_on():
    first, step = torch.tensor([[[1.0, 5.0]], [[2.0, 0.0]]]), torch.tensor([[[4.0, 3.0]], [[7.0, 1.0]]])
    whole, later = told(None, torch.ones(2, 1)), Pass((2, 1), is_first=False)
    kept: dict[int, torch.Tensor] = {}
    assert statistic_of("batch_max", first, whole, 3, kept).flatten().tolist() == [5, 2]
    assert statistic_of("batch_max", step, later, 3, kept).flatten().tolist() == [5, 2]
    assert statistic_of("running_max", first, whole, 3, kept).flatten().tolist() == [5, 2]
    assert statistic_of("running_max", step, later, 3, kept).flatten().tolist() == [5, 7]
    assert statistic_of("running_max", first, later, 3, kept).flatten().tolist() == [5, 7]


def test_the_running_maximum_of_a_prompt_in_parts_leaves_out_the_padding_in_each():
    values = torch.tensor([[[9.0], [8.0], [7.0], [1.0]], [[9.0], [1.0], [0.0], [2.0]]])
    real = torch.tensor([[False, False, False, True], [False, True, True, True]])
    kept: dict[int, torch.Tensor] = {}
    found = [
        statistic_of("running_max", values[:, part], Pass((2, 2), prompt=real[:, part], is_first=first), 0, kept)
        for part, first in ((slice(0, 2), True), (slice(2, 4), False))
    ]
    assert torch.cat(found, dim=1)[real].flatten().tolist() == [1, 1, 1, 2]
    assert torch.isfinite(torch.cat(found)).all()


# In a model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTERVENTIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_is_each_sequence_changed_by_hand(name, side):
    model, intervention = tiny.model("qwen2"), INTERVENTIONS[name]
    rows = [[5, 9, 300, 17, 42], [7, 12, 250, 33, 21, 90, 11], [44, 8]]
    lengths = [3, 6, 1]
    ids, real = padded(rows, side)
    starts = real.int().argmax(dim=1)
    at = torch.arange(ids.shape[1])
    ends = starts + torch.tensor(lengths)  # of the prompts
    prompt = real & (at < ends.unsqueeze(1))
    mask = {"all": None, "prompt": at < ends.unsqueeze(1) - 1, "generated": at >= ends.unsqueeze(1) - 1}
    amplifier = Amplifier(model, CONTENT, intervention, mode="hook")
    places = (real.cumsum(1) - 1).clamp(min=0)
    told_about = amplifier.on(mask[intervention.positions], prompt=prompt)
    with torch.no_grad(), amplifier.amplified("ind_Latn"), told_about:
        found = model(ids, attention_mask=real.long(), position_ids=places).logits
    by_hand = ByHand(model, CONTENT, intervention)
    for row, (tokens, length) in enumerate(zip(rows, lengths, strict=True)):
        expected = by_hand.logits(tokens, length)
        torch.testing.assert_close(found[row][real[row]], expected, atol=2e-5, rtol=1e-5)
    plain = ByHand(model, CONTENT, Intervention("scale", 1.0)).logits(rows[0], 3)
    assert not torch.allclose(by_hand.logits(rows[0], 3), plain, atol=1e-3)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_generation_equals_recomputing_everything_with_and_without_a_cache(name):
    model, intervention = tiny.model("qwen2"), INTERVENTIONS[name]
    amplifier = Amplifier(model, CONTENT, intervention, mode="hook")
    expected = [ByHand(model, CONTENT, intervention).greedy(prompt, 5) for prompt in PROMPTS]
    assert generate(model, amplifier, PROMPTS) == expected
    assert generate(model, amplifier, PROMPTS, use_cache=False) == expected
    assert [generate(model, amplifier, [prompt])[0] for prompt in PROMPTS] == expected


def test_a_prompt_in_parts_has_no_statistic_of_the_batch_but_a_running_maximum():
    model = tiny.model("qwen2")
    running = Amplifier(model, CONTENT, INTERVENTIONS["paper_max"])
    assert generate(model, running, PROMPTS, prefill_chunk_size=2) == generate(model, running, PROMPTS)
    with pytest.raises(InterventionError, match="statistic=batch_p10: the prompt is computed in parts"):
        generate(model, Amplifier(model, CONTENT, INTERVENTIONS["paper_10p"]), PROMPTS, prefill_chunk_size=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_keep_their_type(dtype):
    model = tiny.model("qwen2").to(dtype)
    for name in ("paper_10p", "paper_max", "add batch_mean at prompt"):
        amplifier = Amplifier(model, CONTENT, INTERVENTIONS[name])
        with amplifier.amplified("ind_Latn"), amplifier.on(None, prompt=torch.ones(2, 3)), torch.no_grad():
            logits = model(torch.tensor([[5, 9, 300], [7, 7, 12]])).logits
        assert logits.dtype == dtype
        assert torch.isfinite(logits).all()


def test_others_operation_takes_the_statistic_before_the_targets_neurons_are_changed():
    """Setting the targets to a thousand times the maximum must not be what the others' maximum is of."""
    model = tiny.model("llama")
    content = tiny.neurons("llama")
    intervention = Intervention("set", 1e3, "batch_max", others_operation="set", others_factor=1.0)
    by_hand = ByHand(model, content, intervention).logits([5, 9, 300], 3)
    amplifier = Amplifier(model, content, intervention)
    with torch.no_grad(), amplifier.amplified("ind_Latn"), amplifier.on(None, prompt=torch.ones(1, 3)):
        torch.testing.assert_close(model(torch.tensor([[5, 9, 300]])).logits[0], by_hand, atol=2e-5, rtol=1e-5)


# Presets ----------------------------------------------------------------------------------------------------------


def test_a_preset_is_its_parts_and_its_signature_has_them():
    parts = make_intervention(preset="paper_10p", positions="prompt", layers="0-1").signature_parts
    assert parts == Intervention("set", 1.0, "batch_p10", layers="0-1", positions="prompt").signature_parts
    assert parts["statistic"] == "batch_p10"
    assert parts["positions"] == "prompt"
    assert make_intervention() == Intervention()
    assert make_intervention(factor=2) == Intervention(factor=2)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"preset": "paper_pmax"}, r"preset=paper_pmax \(did you mean 'paper_p_max'.*\?\): expected paper_p_max, "),
        (
            {"preset": "paper_max", "factor": 2},
            "preset=paper_max is operation=set,statistic=running_max,factor=1: leave ",
        ),
        ({"preset": "paper_zero", "operation": "add", "statistic": "max"}, "leave operation, statistic out"),
        ({"statistic": "batch_p11"}, r"statistic=batch_p11 \(did you mean 'batch_p10'"),
        ({"statistic": "running_min"}, r"statistic=running_min \(did you mean 'running_max'"),
    ],
)
def test_a_wrong_preset_or_statistic_is_refused(arguments, line):
    with pytest.raises(InterventionError, match=line):
        make_intervention(**arguments)

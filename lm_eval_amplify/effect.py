"""Whether an intervention does anything: a probe's logits, amplified and not, and why they are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.architecture import dimension_of_neurons, find_feed_forwards
from lm_eval_amplify.intervention import plan

PROBE_TOKENS = 32


def probe_tokens(vocabulary: int) -> torch.Tensor:
    """Return tokens spread evenly over a vocabulary, and so over the languages in it; int64 ``[1, PROBE_TOKENS]``."""
    return torch.linspace(0, vocabulary - 1, PROBE_TOKENS).long().unsqueeze(0)


def without_effect(
    amplifier: Amplifier,
    model: nn.Module,
    logits: Callable[[], torch.Tensor],
    targets: Iterable[tuple[str, ...]],
) -> dict[tuple[str, ...], str]:
    """Return the sets of target languages that change no logit of a probe, and why.

    Costs a forward pass of the probe, and one more for each set that has neurons.

    Args:
        amplifier: Of the model.
        model: What it amplifies.
        logits: Runs the model on the probe.
        targets: Sets of languages of the neuron file.
    """
    reasons: dict[tuple[str, ...], str] = {}
    unamplified: torch.Tensor | None = None
    for languages in targets:
        if not amplifier.number_of_neurons(*languages):
            reasons[languages] = f"no neuron to amplify in layers={amplifier.intervention.layers} of the neuron file"
            continue
        unamplified = logits() if unamplified is None else unamplified
        with amplifier.amplified(*languages):
            amplified = logits()
        if torch.equal(amplified, unamplified):
            reasons[languages] = _why(amplifier, model, languages)
    return reasons


def _why(amplifier: Amplifier, model: nn.Module, languages: tuple[str, ...]) -> str:
    blocks = find_feed_forwards(model)
    edits = plan(amplifier.intervention, amplifier.neurons, languages)
    number = sum(len(edit.index) for edit in edits)
    zero = sum(_zero_columns(blocks[edit.layer].down, torch.from_numpy(edit.index)) for edit in edits)
    found = f"amplifying {number} neurons changes no logit of a probe of {PROBE_TOKENS} tokens: "
    if zero == number:
        return found + "the down projection has only zeros for them"
    if all(edit.operation == "scale" for edit in edits):
        rest = "their activations are zero there (dead neurons)"
    else:
        rest = "their activations have the values already that the intervention gives them"
    others = f"the down projection has only zeros for {zero} of them; of the others " if zero else ""
    return f"{found}{others}{rest}, or the change is too small for the model's type"


def _zero_columns(down: nn.Module, index: torch.Tensor) -> int:
    """How many activations the down projection multiplies by zeros only; 0 where its weight cannot be read."""
    weight: Any = getattr(down, "weight", None)
    plain = isinstance(down, nn.Linear | Conv1D) and isinstance(weight, torch.Tensor) and weight.is_floating_point()
    if not plain or weight.is_meta:
        return 0
    neurons = dimension_of_neurons(down)
    return int((weight.index_select(neurons, index.to(weight.device)) == 0).all(dim=1 - neurons).sum())

"""Interventions at some positions of the input equal forwards changed by hand there, and touch nothing else."""

from __future__ import annotations

import pytest
import tiny
import torch
from test_amplifier import INPUTS, INTERVENTIONS, changed_by_hand, logits

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import ArchitectureError, InterventionError
from lm_eval_amplify.intervention import Intervention

MASK = torch.tensor([[False, True, True, False, False, True], [True, False, False, True, False, False]])


def at(intervention: Intervention, positions: str) -> Intervention:
    import dataclasses

    return dataclasses.replace(intervention, positions=positions)


def site(model, layer: int):
    return model.transformer.h[layer].mlp.act if hasattr(model, "transformer") else model.model.layers[layer].mlp.act_fn


@pytest.fixture
def by_hand(monkeypatch):
    """Amplify by forward hooks of its own, at positions that a function of the input's width gives, bool [rows, pos]."""
    handles = []

    def install(model, content, intervention, where):
        for layer in range(tiny.LAYERS):

            def change(_module, _inputs, output, layer=layer):
                changed = changed_by_hand(output, layer, content, "ind_Latn", intervention)
                return torch.where(where(output.shape[1]).unsqueeze(-1), changed, output)

            handles.append(site(model, layer).register_forward_hook(change))

    yield install
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_intervention_at_positions_equals_a_forward_changed_by_hand(family, intervention, by_hand):
    model, content = tiny.model(family), tiny.neurons(family)
    amplifier = Amplifier(model, content, at(intervention, "prompt"))
    with amplifier.amplified("ind_Latn"), amplifier.on(MASK):
        amplified = logits(model)
    everywhere = Amplifier(model, content, intervention, mode="hook")
    with everywhere.amplified("ind_Latn"):
        assert not torch.allclose(logits(model), amplified, atol=1e-3)
    by_hand(model, content, intervention, lambda _width: MASK)
    torch.testing.assert_close(amplified, logits(model), atol=2e-5, rtol=1e-5)

"""The forms of feed-forward networks: which children a module has that is one.

A module is of a form if its children are exactly the form's, apart from dropouts, which do nothing in evaluation.
Anything else between activation and down projection (a norm, a quantiser) would be a further child, and make the
module unknown rather than wrongly understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn


class Form(NamedTuple):
    """Children of a module by what they do; paths from the module, ``output.dense`` a child's child."""

    activation: str | None
    """None where the forward computes it inline."""
    down: str
    inputs: tuple[str, ...]
    """One in a plain FFN, down(act(up(x))); gate and up in a gated one, down(act(gate(x)) * up(x))."""
    between: str | None = None
    """What lies between the activation and the down projection."""
    others: frozenset[str] = frozenset()
    """Further children that a module may have, none of which lies between."""
    function: Callable[[torch.Tensor], torch.Tensor] | None = None
    """The activation of a gated FFN that computes it inline."""
    is_fused: bool = False
    """Whether the one input projection yields both halves of a gated FFN."""

    @property
    def is_gated(self) -> bool:
        """Whether the activation is multiplied before it goes into the down projection."""
        return self.is_fused or len(self.inputs) > 1


_DECODER_LAYER = frozenset(
    {"self_attn", "self_attn_layer_norm", "encoder_attn", "encoder_attn_layer_norm", "global_self_attn_layer_norm",
     "final_layer_norm"}
)  # fmt: skip
_BERT_LAYER = frozenset(
    {"attention", "crossattention", "LayerNorm", "ln", "intermediate.LayerNorm", "output.LayerNorm",
     "output.adapter_layer_norm", "output.adapter_modules"}
)  # fmt: skip

_GATED = (
    Form("act_fn", "down_proj", ("gate_proj", "up_proj")),  # Llama, Qwen, Gemma and most others
    Form("activation_fn", "down_proj", ("gate_proj", "up_proj")),  # Llama 4
    Form("activation_fn", "down_proj", ("gate_up_proj",), is_fused=True),  # Phi-3, GLM
    Form("activation", "output_linear", ("input_linear",), is_fused=True),  # Granite 4
    Form("act", "wo", ("wi_0", "wi_1")),  # mT5
    Form("act", "Wo", ("Wi",), is_fused=True),  # ModernBERT
    Form("act_fn", "proj_down", ("proj_up_gate", "proj_up")),  # xLSTM
    Form("w_in.act", "w_out", ("w_in.w_0", "w_in.w_1")),  # CPM-Ant
    Form("act_fn", "down_proj", ("gate_proj", "up_proj"), between="ffn_sub_norm"),  # BitNet
    Form(None, "w2", ("w1", "w3"), function=nn.functional.silu),  # LFM2
)
_PLAIN = (
    Form("act", "c_proj", ("c_fc",)),  # GPT-2, StarCoder 2
    Form("act", "dense_4h_to_h", ("dense_h_to_4h",)),  # GPT-NeoX, Falcon
    Form("gelu_impl", "dense_4h_to_h", ("dense_h_to_4h",)),  # BLOOM
    Form("act_fn", "down_proj", ("up_proj",)),  # Nemotron
    Form("act", "down_proj", ("up_proj",)),  # MPT
    Form("activation_fn", "fc2", ("fc1",)),  # Phi
    Form("act", "fc2", ("fc1",)),  # NLLB, SeamlessM4T
    Form("activation_fn", "fc2", ("fc1",), between="ffn_layernorm"),  # Kosmos-2
    Form("activation_fn", "fc2", ("fc1",), others=_DECODER_LAYER),  # OPT, BART: the layer itself
    Form("act", "fc_out", ("fc_in",)),  # GPT-J
    Form("act", "wo", ("wi",)),  # T5
    Form("act", "lin2", ("lin1",)),  # XLM
    Form("activation_fn", "output", ("intermediate",)),  # ProphetNet
    Form("activation_function", "layer_2", ("layer_1",), others=frozenset({"layer_norm"})),  # XLNet
    Form("intermediate.intermediate_act_fn", "output.dense", ("intermediate.dense",), others=_BERT_LAYER),  # BERT
    Form("1", "2", ("0",)),  # CTRL
    Form(None, "value", ("key",), others=frozenset({"time_shift", "receptance"})),  # RWKV
)


def form_of(module: nn.Module) -> Form | None:
    """Return the form that a module's children have, or None."""
    children = module._modules  # noqa: SLF001  # named_children() leaves out a child that another name has, too
    if len(children) < 2:  # no form has fewer
        return None
    return next((form for form in (*_GATED, *_PLAIN) if _is(module, children, form)), None)


def _is(module: nn.Module, children: Mapping[str, nn.Module | None], form: Form) -> bool:
    if form.down.partition(".")[0] not in children:
        return False
    required = {form.down, *form.inputs} | {path for path in (form.activation, form.between) if path is not None}
    parents = {path.rpartition(".")[0] for path in required}
    found = {
        f"{parent}.{name}" if parent else name
        for parent in parents
        for name, child in _descend(module, parent).items()
        if child is not None and not isinstance(child, nn.Dropout)
    }
    if not required <= found or found - required - parents - form.others:
        return False
    # What an activation has in the way of parameters are single numbers, as the slopes of a PReLU.
    activation = module.get_submodule(form.activation) if form.activation is not None else nn.Identity()
    return all(parameter.dim() <= 1 for parameter in activation.parameters())


def _descend(module: nn.Module, path: str) -> Mapping[str, nn.Module | None]:
    for name in path.split(".") if path else ():
        child = module._modules.get(name)  # noqa: SLF001  # as above
        if child is None:
            return {}
        module = child
    return module._modules  # noqa: SLF001  # as above

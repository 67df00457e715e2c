"""Where a model's neurons are: the feed-forward network (FFN) of each decoder layer, found by its structure.

An FFN is a module whose children are exactly those of one of the known forms; anything else between activation and
down projection (a norm, a quantiser) would be a further child and makes the model unsupported rather than wrong.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lm_eval_amplify.errors import ArchitectureError


class _Form(NamedTuple):
    activation: str
    down: str
    inputs: tuple[str, ...]


_FORMS = (
    _Form("act_fn", "down_proj", ("gate_proj", "up_proj")),  # gated: down(act(gate(x)) * up(x))
    _Form("act", "c_proj", ("c_fc",)),  # plain: down(act(up(x)))
)
_LAYER = re.compile(r"\.(?P<layer>\d+)\.\w+")  # at the end of the path of a decoder layer's own child
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class FeedForward(NamedTuple):
    """The FFN of one decoder layer."""

    layer: int
    """From 0."""
    name: str
    """Path of the module in the model."""
    activation: nn.Module
    """Its output, ``[..., d_ff]``, is the site of an intervention."""
    down: nn.Module
    """The down projection, whose input is the activation, times the up projection in a gated FFN."""
    d_ff: int
    """Number of neurons."""


def find_feed_forwards(model: nn.Module) -> list[FeedForward]:
    """Return the FFN of every decoder layer, by layer.

    Raises:
        ArchitectureError: The model is an encoder-decoder, or its layers have no FFN of a known form, or several.
    """
    name = type(model).__name__
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ArchitectureError(f"{name} is an encoder-decoder; supported are decoder-only models")
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any((getattr(text_config, field, None) or 0) > 1 for field in _EXPERTS):
        raise ArchitectureError(f"{name} is a mixture of experts, which is not supported")
    found: dict[int, FeedForward] = {}
    for path, module in model.named_modules():
        form = _form_of(module)
        if form is None:
            continue
        match = _LAYER.search(path)
        if match is None or match.end() != len(path) or int(match["layer"]) in found:
            raise ArchitectureError(
                f"{name} has a feed-forward network besides one in each decoder layer ({path}), which is not supported"
            )
        layer = int(match["layer"])
        down = getattr(module, form.down)
        found[layer] = FeedForward(layer, path, getattr(module, form.activation), down, _width(down, path))
    expected = getattr(text_config, "num_hidden_layers", len(found))
    if not found or sorted(found) != list(range(expected)):
        raise ArchitectureError(
            f"{name} (model_type {getattr(config, 'model_type', 'unknown')}) is not supported: feed-forward networks "
            f"of a known form in {len(found)} of {expected} layers; supported are gate_proj, up_proj, act_fn, "
            "down_proj (as Llama, Qwen2, Gemma 2) and c_fc, act, c_proj (as GPT-2)"
        )
    if len({id(block.activation) for block in found.values()}) != len(found):
        raise ArchitectureError(f"{name} shares one activation module among layers, which cannot be told apart")
    return [found[layer] for layer in sorted(found)]


def fold_obstacle(down: nn.Module) -> str | None:
    """Return why columns of a down projection cannot be scaled in place, or None where they can.

    Scaling column j of ``down`` equals scaling activation j exactly if ``down`` is a plain matrix product with its own
    weight in memory.
    """
    if type(down) not in (nn.Linear, Conv1D):
        return f"its down projection is a {type(down).__name__}, not a plain linear layer"
    weight = down.weight
    if not isinstance(weight, torch.Tensor) or weight.is_meta or hasattr(down, "_hf_hook"):
        return "its down projection's weight is offloaded"
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return f"its down projection's weight is a {type(weight).__name__} of {weight.dtype}, not a plain parameter"
    return None


def column(down: nn.Module, index: torch.Tensor) -> tuple[torch.Tensor | slice, ...]:
    """Return the subscript of ``down.weight`` that selects the columns multiplied by activations ``index``."""
    return (index,) if isinstance(down, Conv1D) else (slice(None), index)


def _form_of(module: nn.Module) -> _Form | None:
    children = {name for name, child in module.named_children() if not isinstance(child, nn.Dropout)}
    return next((form for form in _FORMS if children == {form.activation, form.down, *form.inputs}), None)


def _width(down: nn.Module, path: str) -> int:
    if isinstance(down, Conv1D):
        return int(down.weight.shape[0])
    width = getattr(down, "in_features", None)
    if not isinstance(width, int):
        raise ArchitectureError(f"{path}: cannot tell the input width of its down projection {type(down).__name__}")
    return width

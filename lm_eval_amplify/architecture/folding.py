"""Whether scaling an activation can be folded into the down projection, and which columns those are."""

from __future__ import annotations

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lm_eval_amplify.architecture.feed_forward import FeedForward

_MATRIX_PRODUCTS = frozenset(
    {
        "torch.nn.modules.linear.Linear",
        "transformers.pytorch_utils.Conv1D",
        "transformers.models.falcon.modeling_falcon.FalconLinear",
    }
)


def fold_obstacle(block: FeedForward) -> str | None:
    """Return why an FFN's down projection cannot be scaled in place instead of its activation, or None where it can.

    Scaling column j of ``down`` equals scaling activation j exactly if the activation, times at most the up
    projection, goes straight into a matrix product with a weight that is whole, in memory, and nobody else's.
    """
    obstacle = structural_obstacle(block)
    if obstacle is not None:
        return obstacle
    down = block.down
    weight = down.weight
    # Accelerate's hook stays on a module that is merely placed on a device; only one that loads weights is in the way.
    if not isinstance(weight, torch.Tensor) or weight.is_meta or _offloads(getattr(down, "_hf_hook", None)):
        return "its down projection's weight is offloaded"
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return f"its down projection's weight is a {type(weight).__name__} of {weight.dtype}, not a plain parameter"
    if weight.dim() != 2 or weight.shape[dimension_of_neurons(down)] != block.d_ff:  # a matrix
        return f"its down projection's weight is not whole here: shape {tuple(weight.shape)} for d_ff={block.d_ff}"
    if down._forward_hooks or down._forward_pre_hooks or ("forward" in vars(down) and not hasattr(down, "_hf_hook")):  # noqa: SLF001  # torch has no public way to ask
        return "its down projection's forward is changed by a hook"
    return None


def structural_obstacle(block: FeedForward) -> str | None:
    """Return what in an FFN's structure, whatever its weights, forbids to scale columns of its down projection."""
    if block.unfoldable is not None:
        return block.unfoldable
    kind = f"{type(block.down).__module__}.{type(block.down).__qualname__}"
    return None if kind in _MATRIX_PRODUCTS else f"its down projection is a {kind}, not a plain linear layer"


def dimension_of_neurons(down: nn.Module) -> int:
    """Return the dimension of ``down.weight`` along which index j is what activation j is multiplied by."""
    return 0 if isinstance(down, Conv1D) else 1


def _offloads(hook: object) -> bool:
    return bool(getattr(hook, "offload", False)) or any(map(_offloads, getattr(hook, "hooks", ())))

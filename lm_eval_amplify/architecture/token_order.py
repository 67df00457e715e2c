"""Whether the activations of a feed-forward network are one row for each token, in the order of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lm_eval_amplify.architecture.feed_forward import FeedForward
from lm_eval_amplify.architecture.sites import Change
from lm_eval_amplify.errors import ArchitectureError


@torch.no_grad()
def check_token_by_token(model: nn.Module, blocks: Sequence[FeedForward], otherwise: str) -> None:
    """Check that every network runs once over each token of an input ``[batch, pos]``, in that order, and causally.

    Runs the model, without its head, on two texts that differ in their last token.

    Args:
        model: A decoder-only model.
        blocks: Its networks.
        otherwise: What cannot be done with a model of another kind, for the message.

    Raises:
        ArchitectureError: It is of another kind.
    """
    name = type(model).__name__
    middle = _vocabulary(model) // 2  # where no special token is
    ids = middle + torch.tensor([[0, 1, 2], [0, 1, 3]], device=input_device(model))
    seen: dict[int, list[torch.Tensor]] = {block.layer: [] for block in blocks}

    def keep(layer: int) -> Change:
        return lambda activation, _may_write: seen[layer].append(activation.flatten(0, -2).clone())

    with evaluating(model), ExitStack() as undo:
        for block in blocks:
            block.hook(keep(block.layer), undo)
        decoder: nn.Module = getattr(model, "base_model", model)
        decoder(input_ids=ids, use_cache=False)
    for layer, shown in seen.items():
        if [len(activation) for activation in shown] != [ids.numel()]:
            rows = ", ".join(str(len(activation)) for activation in shown) or "none"
            raise ArchitectureError(
                f"{name} does not run the feed-forward network of layer {layer} once over every token "
                f"(rows of its runs: {rows}; tokens: {ids.numel()}): {otherwise}"
            )
        one, other = shown[0].view(*ids.shape, -1)[:, :-1].float()
        # Rounding may differ between rows of a batch; what a later token does is far larger.
        tolerance = 8 * torch.finfo(shown[0].dtype).eps * one.abs().max()
        if ((one - other).abs() > tolerance).any():
            raise ArchitectureError(
                f"{name} lets a token's activations depend on later ones, or has them in another "
                f"order than [batch, pos]: {otherwise}"
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode inside the ``with`` block; afterwards each module is as it was."""
    with ExitStack() as undo:
        for module in model.modules():
            if module.training:
                undo.callback(setattr, module, "training", True)
        model.eval()
        yield


def input_device(model: nn.Module) -> torch.device:
    """Return the device where a model takes its tokens."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embeddings, "weight", None)
    device = weight.device if isinstance(weight, torch.Tensor) else next(model.parameters()).device
    # Where weights are offloaded, accelerate brings inputs to the module's device.
    return torch.device("cpu") if device.type == "meta" else device


def _vocabulary(model: nn.Module) -> int:
    embeddings: Any = getattr(model, "get_input_embeddings", lambda: None)()
    number = getattr(embeddings, "num_embeddings", None) or getattr(model.config, "vocab_size", None)
    return number if isinstance(number, int) else 8

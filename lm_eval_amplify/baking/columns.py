"""Baking into the down projections as they are: any architecture where scaling columns is exact.

With h the input of a down projection, y = D h + b. A neuron scaled by f is column j of D times f. In a plain network,
where h is the activation itself, a neuron set to c is c D_j in b and zeros in column j, and one plus c is c D_j in b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lm_eval_amplify.architecture import FeedForward, dimension_of_neurons, structural_obstacle
from lm_eval_amplify.baking.changes import Changes, New
from lm_eval_amplify.baking.network import Network
from lm_eval_amplify.baking.tensor_files import Made, Stored
from lm_eval_amplify.errors import ArchitectureError, CheckpointError
from lm_eval_amplify.intervention import Edit


def obstacle(network: Network, edits: Sequence[Edit]) -> str | None:
    """Return why edits cannot be baked so, or None where they can.

    Raises:
        ArchitectureError: They can in no way: the model normalises between activation and down projection, say.
    """
    for edit in edits:
        block = network.blocks[edit.layer]
        why = structural_obstacle(block)
        if why is not None:
            raise ArchitectureError(
                f"{network.class_name} cannot be baked: in {block.name} {why}; run it with --model amplified_hf"
            )
        if edit.operation != "scale" and not block.is_plain:
            return "a constant needs a bias in its gates"
        if edit.operation != "scale" and getattr(block.down, "bias", None) is None:
            return "a constant needs a bias in its down projections"
    return None


def into_columns(network: Network, edits: Sequence[Edit]) -> Changes:
    """Return the changes for edits that have no :func:`obstacle`.

    Raises:
        CheckpointError: The checkpoint lacks a tensor, or has it in another form.
    """
    by_layer: dict[int, list[Edit]] = {}
    for edit in edits:
        by_layer.setdefault(edit.layer, []).append(edit)
    tensors: dict[str, New] = {}
    for layer, own in by_layer.items():
        block = network.blocks[layer]
        path = network.down(block)
        name, weight = network.stored(f"{path}.weight")
        scaled = [edit for edit in own if edit.operation != "add"]
        if scaled:
            compute = _columns(block, weight, scaled)
            tensors[name] = New(name, Made(weight.dtype, weight.shape, compute))
        constants = [edit for edit in own if edit.operation != "scale"]
        if constants:
            name, bias = network.stored(f"{path}.bias")
            tensors[name] = New(name, Made(bias.dtype, bias.shape, _bias(block, weight, bias, constants)))
    return Changes(tensors)


def scale_columns(weight: torch.Tensor, dimension: int, index: torch.Tensor, factors: torch.Tensor) -> None:
    """Multiply columns of a weight in place.

    Args:
        weight: A matrix.
        dimension: The one along which ``index`` counts.
        index: int64 ``[columns]``.
        factors: float64 ``[columns]``.

    Raises:
        CheckpointError: The weight's type does not hold the product.
    """
    shaped = factors.unsqueeze(1) if dimension == 0 else factors
    before = weight.index_select(dimension, index)
    weight.index_copy_(dimension, index, fitting(before.double() * shaped, weight.dtype, before))


def fitting(values: torch.Tensor, dtype: torch.dtype, before: torch.Tensor | None = None) -> torch.Tensor:
    """Return values in a type.

    Raises:
        CheckpointError: One is too large for it, and ``before`` was not already.
    """
    cast = values.to(dtype)
    if not torch.isfinite(cast).all() and (before is None or torch.isfinite(before).all()):
        name = str(dtype).removeprefix("torch.")
        raise CheckpointError(
            f"the checkpoint's type {name} holds {torch.finfo(dtype).max:.6g} at most, not {values.abs().max():.6g}: "
            "take a smaller factor, or save the model in another type first"
        )
    return cast


def _columns(block: FeedForward, weight: Stored, edits: Sequence[Edit]) -> Callable[[], torch.Tensor]:
    def compute() -> torch.Tensor:
        whole = weight.read()
        for edit in edits:
            factors = torch.from_numpy(edit.value)
            factors = factors if edit.operation == "scale" else torch.zeros_like(factors)
            scale_columns(whole, dimension_of_neurons(block.down), torch.from_numpy(edit.index), factors)
        return whole

    return compute


def _bias(block: FeedForward, weight: Stored, bias: Stored, edits: Sequence[Edit]) -> Callable[[], torch.Tensor]:
    def compute() -> torch.Tensor:
        before = bias.read()
        whole, total = weight.read(), before.double()
        dimension = dimension_of_neurons(block.down)
        for edit in edits:
            columns = whole.index_select(dimension, torch.from_numpy(edit.index)).double()
            total += (columns if dimension == 1 else columns.T) @ torch.from_numpy(edit.value)
        return fitting(total, before.dtype, before)

    return compute

"""Baking constants into gated networks, as a Llama checkpoint with biases.

A network is D (act(G x + g) * (U x + u)) + d. Neuron j is set to c by a row of zeros in G and the g_j for which
act(g_j) = |c|; the sign of c goes into column j of D. One plus c is one more neuron: a row of zeros in G, such a bias,
and copies of j's row of U, of u_j, and of its column of D, with the sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers.activations import ACT2FN

from lm_eval_amplify.baking.changes import Changes, New
from lm_eval_amplify.baking.checkpoint import Checkpoint
from lm_eval_amplify.baking.columns import fitting, scale_columns
from lm_eval_amplify.baking.inverse import inverse
from lm_eval_amplify.baking.llama_form import llama_config, new_biases, why_not_llama
from lm_eval_amplify.baking.network import Network
from lm_eval_amplify.baking.tensor_files import FLOATS, Made, Stored
from lm_eval_amplify.errors import ArchitectureError, InterventionError
from lm_eval_amplify.intervention import Edit


class _Constants(NamedTuple):
    """Neurons of a layer with the constants of their gates."""

    neurons: torch.Tensor  # int64 [neurons]
    bias: torch.Tensor  # of the gate, float64 [neurons]
    sign: torch.Tensor  # of the down column, float64 [neurons]


_NONE = _Constants(torch.empty(0, dtype=torch.int64), *(torch.empty(0, dtype=torch.float64) for _ in range(2)))


class _Layer(NamedTuple):
    set: _Constants
    added: _Constants
    scaled: torch.Tensor  # int64 [neurons]
    factor: torch.Tensor  # float64 [neurons]


def into_llama(
    network: Network, checkpoint: Checkpoint, edits: Sequence[Edit], why: str, *, multiple_of: int
) -> Changes:
    """Return the changes for any edits of a model that a Llama checkpoint can express.

    Args:
        network: The model.
        checkpoint: Its files.
        edits: Of all layers.
        why: Why they cannot be baked without a bias in the gate.
        multiple_of: What a d_ff that grows is a multiple of.

    Raises:
        ArchitectureError: Llama cannot express the model.
        InterventionError: The activation function takes a constant's size nowhere.
        CheckpointError: The checkpoint lacks a tensor, or its type does not hold a constant.
    """
    obstacle = why_not_llama(network)
    if obstacle is not None:
        raise ArchitectureError(
            f"set and add cannot be baked into {network.class_name}: {why}, and as a Llama checkpoint, which can have "
            f"one, it cannot be written: {obstacle}; scale can be baked, and set to 0"
        )
    d_ff = network.blocks[0].d_ff
    layers = _solved(network, edits)
    grown = max((len(layer.added.neurons) for layer in layers), default=0)
    width = d_ff if not grown else -(-(d_ff + grown) // multiple_of) * multiple_of
    tensors: dict[str, New] = {}
    for block, layer in zip(network.blocks, layers, strict=True):
        tensors |= _tensors(network, block.name, layer, width)
    for bias in new_biases(network):
        if bias not in tensors:
            beside, weight = network.stored(f"{bias.removesuffix('bias')}weight")
            tensors[bias] = New(beside, Made(weight.dtype, weight.shape[:1], _zeros(weight)))
    return Changes(
        tensors,
        {own: name for name, own in network.names.items()},
        llama_config(network, checkpoint, width),
        width if grown else None,
        _rounding(network, layers),
    )


def _solved(network: Network, edits: Sequence[Edit]) -> list[_Layer]:
    """The edits of each layer with the gates' biases."""
    constants = [edit for edit in edits if edit.operation != "scale"]
    biases = _biases(network, constants)
    layers = []
    for block in network.blocks:
        own: dict[str, _Constants] = {}
        for operation in ("set", "add"):
            chosen = [
                _Constants(torch.from_numpy(edit.index), bias, torch.from_numpy(edit.value).sign())
                for edit, bias in zip(constants, biases, strict=True)
                if edit.layer == block.layer and edit.operation == operation
            ]
            own[operation] = _Constants(*map(torch.cat, zip(_NONE, *chosen, strict=True)))
        scaled = [edit for edit in edits if edit.layer == block.layer and edit.operation == "scale"]
        index = torch.cat([_NONE.neurons, *(torch.from_numpy(edit.index) for edit in scaled)])
        factor = torch.cat([_NONE.bias, *(torch.from_numpy(edit.value) for edit in scaled)])
        layers.append(_Layer(own["set"], own["add"], index, factor))
    return layers


def _biases(network: Network, edits: Sequence[Edit]) -> Sequence[torch.Tensor]:
    """The bias of the gate of every constant, by edit."""
    name = network.config.hidden_act
    activation = ACT2FN[name]
    if any(True for _ in activation.parameters()):
        raise ArchitectureError(f"set and add cannot be baked: the activation {name} has weights of its own")
    solved = inverse(activation, torch.cat([_NONE.bias, *(torch.from_numpy(edit.value).abs() for edit in edits)]))
    biases = torch.split(solved, [len(edit.index) for edit in edits])
    for edit, bias in zip(edits, biases, strict=True):
        if bias.isnan().any():
            first = int(bias.isnan().nonzero()[0])
            value = float(edit.value[first])
            raise InterventionError(
                f"{edit.operation} {value:.6g} on neuron {edit.index[first]} of layer {edit.layer}: the model's "
                f"activation {name} is nowhere {abs(value):.6g}"
            )
    return biases


def _tensors(network: Network, path: str, layer: _Layer, width: int) -> dict[str, New]:
    """The tensors of a network that change, by their names in the model."""
    gate, up, down = (network.stored(f"{path}.{name}_proj.weight") for name in ("gate", "up", "down"))
    d_ff = gate[1].shape[0]
    added = slice(d_ff, d_ff + len(layer.added.neurons))
    biases = {name: _bias(network, f"{path}.{name}_proj.bias") for name in ("gate", "up")}
    dtype = FLOATS[gate[1].dtype]
    in_gate = {name: fitting(own.bias, dtype) for name, own in (("set", layer.set), ("added", layer.added))}

    def gate_weight() -> torch.Tensor:
        whole = _grown(gate[1], width)
        whole[layer.set.neurons] = 0
        return whole

    def gate_bias() -> torch.Tensor:
        whole = torch.zeros(width, dtype=dtype)
        whole[:d_ff] = 0 if biases["gate"] is None else biases["gate"].read()
        whole[layer.set.neurons] = in_gate["set"]
        whole[added] = in_gate["added"]
        return whole

    def up_weight() -> torch.Tensor:
        whole = _grown(up[1], width)
        whole[added] = whole[layer.added.neurons]
        return whole

    def up_bias() -> torch.Tensor:
        whole = torch.zeros(width, dtype=FLOATS[up[1].dtype])
        whole[:d_ff] = 0 if biases["up"] is None else biases["up"].read()
        whole[added] = whole[layer.added.neurons]
        return whole

    def down_weight() -> torch.Tensor:
        before = down[1].read()
        whole = before if width == d_ff else before.new_zeros(before.shape[0], width)
        if width != d_ff:
            whole[:, :d_ff] = before
            whole[:, added] = before.index_select(1, layer.added.neurons) * layer.added.sign.to(before.dtype)
        scale_columns(whole, 1, layer.set.neurons, layer.set.sign)
        scale_columns(whole, 1, layer.scaled, layer.factor)
        return whole

    hidden = gate[1].shape[1]
    found: dict[str, tuple[tuple[str, Stored], tuple[int, ...], Callable[[], torch.Tensor]]] = {}
    if width != d_ff or len(layer.set.neurons):
        found["gate_proj.weight"] = (gate, (width, hidden), gate_weight)
    found["gate_proj.bias"] = (gate, (width,), gate_bias)
    if width != d_ff:
        found["up_proj.weight"] = (up, (width, hidden), up_weight)
    found["up_proj.bias"] = (up, (width,), up_bias)
    if width != d_ff or len(layer.scaled) or (layer.set.sign < 0).any():
        found["down_proj.weight"] = (down, (hidden, width), down_weight)
    return {
        f"{path}.{name}": New(stored[0], Made(stored[1].dtype, shape, compute))
        for name, (stored, shape, compute) in found.items()
    }


def _grown(weight: Stored, rows: int) -> torch.Tensor:
    """A weight with rows of zeros after its own."""
    before = weight.read()
    if rows == before.shape[0]:
        return before
    whole = before.new_zeros(rows, *before.shape[1:])
    whole[: before.shape[0]] = before
    return whole


def _bias(network: Network, path: str) -> Stored | None:
    return network.stored(path)[1] if path in network.names else None


def _zeros(weight: Stored) -> Callable[[], torch.Tensor]:
    return lambda: torch.zeros(weight.shape[:1], dtype=FLOATS[weight.dtype])


def _rounding(network: Network, layers: Sequence[_Layer]) -> float:
    """The largest share by which the rounding of a gate's bias moves the constant."""
    activation = ACT2FN[network.config.hidden_act]
    largest = 0.0
    for block, layer in zip(network.blocks, layers, strict=True):
        dtype = FLOATS[network.stored(f"{block.name}.gate_proj.weight")[1].dtype]
        for own in (layer.set, layer.added):
            if len(own.neurons):
                exact, rounded = activation(own.bias), activation(own.bias.to(dtype).double())
                share = (rounded - exact).abs() / exact.clamp(min=torch.finfo(dtype).smallest_normal)
                largest = max(largest, float(share.max()))
    return largest

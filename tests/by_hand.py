"""Feed-forward networks changed by hand, below the modules: where a weight enters a matrix product.

Nothing here goes through the amplifier's hooks or knows the activation: in ``y = down(h)`` the vector ``h`` is the
activation a, times the factor u of a gated network, so that setting a to s makes h = s u, adding s makes it h + s u,
and scaling by s makes it s h. Both h and u are seen as what a function of torch gets or gives whose operand is the
weight of ``down`` or of the projection that yields u.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# The projection that yields the factor, and whether the first half of what it yields is the gate.
FACTORS = {
    "up_proj": False, "wi_1": False, "w3": False, "proj_up": False, "w_in.w_1": False,
    "gate_up_proj": True, "input_linear": True, "Wi": True,
}  # fmt: skip
GATES = ("gate_proj", "wi_0", "w1", "proj_up_gate", "w_in.w_0", "gate_up_proj", "input_linear", "Wi")
NORMS = ("ffn_sub_norm", "ffn_layernorm")

Change = Callable[[int, torch.Tensor, torch.Tensor | float], torch.Tensor]
"""From a layer, h and u, the h that takes its place."""


class Place(NamedTuple):
    """Where a network's weights are."""

    layer: int
    down: torch.Tensor
    d_ff: int
    factor: torch.Tensor | None
    is_fused: bool
    norm: nn.Module | None


def places(model: nn.Module, blocks: list) -> list[Place]:
    """The places of networks, given their modules."""
    found = []
    for block in blocks:
        module = model.get_submodule(block.name)
        names = dict(module.named_modules())
        is_gated = any(name in names for name in GATES)
        factor = next((name for name in FACTORS if name in names), None) if is_gated else None
        if factor is None and getattr(names.get("fc1"), "out_features", 0) == 2 * block.d_ff:
            factor = "fc1"  # Moshi
        norm = next((names[name] for name in NORMS if name in names), None)
        weight = names[factor].weight if factor else None
        found.append(
            Place(block.layer, block.down.weight, block.d_ff, weight, FACTORS.get(factor, factor is not None), norm)
        )
    return found


@contextmanager
def changed(found: list[Place], change: Change) -> Iterator[None]:
    """Change what goes into the down projections, or into a norm before one, inside the ``with`` block."""
    with ExitStack() as undo:
        mode = _Mode(found, change)
        for place in found:
            if place.norm is not None:
                undo.callback(place.norm.__dict__.pop, "forward")
                place.norm.forward = mode.before(place, place.norm.forward)
        undo.enter_context(mode)
        yield


class _Mode(TorchFunctionMode):
    def __init__(self, found: list[Place], change: Change) -> None:
        super().__init__()
        self.change = change
        self.seen: dict[int, torch.Tensor] = {}
        self.down = _by_weight([(place.down, place) for place in found if place.norm is None])
        self.factors = _by_weight([(place.factor, place) for place in found if place.factor is not None])

    def __torch_function__(self, function, types, arguments=(), named=None):
        named = named or {}
        tensors = [value for value in arguments if isinstance(value, torch.Tensor)]
        # What takes only the weight, as its transposition does, is no product.
        weights = [_storage(value) for value in tensors] if len(tensors) > 1 else []
        place = next((next(self.down[key]) for key in weights if key in self.down), None)
        if place is not None:
            arguments = [self._changed(place, value) for value in arguments]
        result = function(*arguments, **named)
        place = next((next(self.factors[key]) for key in weights if key in self.factors), None)
        if place is not None:
            self.seen[place.layer] = result.chunk(2, -1)[1] if place.is_fused else result
        return result

    def _changed(self, place: Place, value):
        is_hidden = isinstance(value, torch.Tensor) and value.shape[-1:] == (place.d_ff,)
        if not is_hidden or value.dim() < 2 or _storage(value) == _storage(place.down):
            return value
        return self._apply(place, value)

    def _apply(self, place: Place, value: torch.Tensor) -> torch.Tensor:
        return self.change(place.layer, value, self.seen[place.layer] if place.factor is not None else 1.0)

    def before(self, place: Place, forward):
        return lambda value: forward(self._apply(place, value))


def _storage(tensor: torch.Tensor) -> int:
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return 0  # has none, and is no weight
    return tensor.untyped_storage().data_ptr()


def _by_weight(found: list[tuple[torch.Tensor, Place]]) -> dict[int, Iterator[Place]]:
    """The places of each weight in turn, again and again: layers that share one use it one after the other."""
    places: dict[int, list[Place]] = {}
    for weight, place in found:
        places.setdefault(_storage(weight), []).append(place)
    return {key: itertools.cycle(own) for key, own in places.items()}

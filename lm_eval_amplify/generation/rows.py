"""The state of a generation by rows: rows taken out of it, and key-value caches with room for what comes."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 32
"""Positions that a cache grows by at once."""


def keep_rows(state: dict[str, Any], kept: torch.Tensor, rows: int) -> None:
    """Leave only some rows in what a model is called with, in place.

    Args:
        state: Arguments that transformers' generation carries from step to step, with the cache.
        kept: Those rows, int64 ``[kept]``, on the model's device.
        rows: How many there were.
    """
    for name, value in state.items():
        if isinstance(value, Cache):
            value.reorder_cache(kept)  # every kind of cache has it, for beam search, and takes fewer rows as well
        elif isinstance(value, torch.Tensor) and value.dim() > 0:
            # [rows, positions], or of a position in several dimensions [dimensions, rows, positions].
            dimension = value.dim() - 2 if name == "position_ids" else 0
            if value.shape[dimension] == rows:
                state[name] = value.index_select(dimension, kept.to(value.device))


def give_room(cache: Cache, limit: int) -> None:
    """Let the layers of a filled cache write new positions beside the old ones, where transformers copies all of them.

    Args:
        cache: Of a model; layers of another kind than transformers' plain growing one stay as they are.
        limit: The greatest number of positions that they will hold.
    """
    if cache.offloading:
        return
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = RoomyLayer(layer, limit)


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A layer of a cache whose keys and values lie in larger tensors.

    Args:
        layer: Filled, ``[rows, heads, positions, size]``.
        limit: The greatest number of positions to make room for.
    """

    def __init__(self, layer: DynamicLayer, limit: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.keys.dtype, layer.device, True
        self.keys, self.values = layer.keys, layer.values
        self._limit = limit
        self._all_keys, self._all_values = layer.keys, layer.values

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *_arguments: Any,
        **_options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions; return all keys and values."""
        before = self.keys.shape[-2]
        after = before + key_states.shape[-2]
        if after > self._all_keys.shape[-2]:
            room = max(after, min(after + ROOM, self._limit))
            self._all_keys = _larger(self.keys, room)
            self._all_values = _larger(self.values, room)
        self._all_keys[:, :, before:after] = key_states
        self._all_values[:, :, before:after] = value_states
        self.keys, self.values = self._all_keys[:, :, :after], self._all_values[:, :, :after]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep these rows."""
        positions = self.keys.shape[-2]
        rows = beam_idx.to(self._all_keys.device)
        self._all_keys = self._all_keys.index_select(0, rows)
        self._all_values = self._all_values.index_select(0, rows)
        self.keys, self.values = self._all_keys[:, :, :positions], self._all_values[:, :, :positions]


def _larger(tensor: torch.Tensor, positions: int) -> torch.Tensor:
    larger = tensor.new_empty(*tensor.shape[:-2], positions, tensor.shape[-1])
    larger[..., : tensor.shape[-2], :] = tensor
    return larger

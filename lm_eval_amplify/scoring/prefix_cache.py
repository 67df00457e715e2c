"""The keys and values of a prefix, computed once and seen by many rows."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer


class _Layer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """A layer's keys and values ``[1, heads, tokens, width]``; kept as they are once it is frozen."""

    is_frozen = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_frozen:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            return keys, values
        rows = key_states.shape[0]
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


class PrefixCache(Cache):  # type: ignore[misc]  # the same
    """Keys and values of a prefix, for one forward pass that appends to a copy of it and any number that do not.

    The first pass, over the prefix, is remembered; :meth:`freeze` makes all later ones see it and leave no trace.

    Args:
        shorter: The frozen cache of the prefix's beginning.
    """

    def __init__(self, shorter: PrefixCache | None = None) -> None:
        super().__init__(layer_class_to_replicate=_Layer)
        for layer in shorter.layers if shorter is not None else ():
            own = _Layer()
            if layer.is_initialized:
                own.lazy_initialization(layer.keys, layer.values)
                own.keys, own.values = layer.keys, layer.values  # appending makes new tensors
            self.layers.append(own)

    def freeze(self) -> PrefixCache:
        """Let no further pass change it."""
        for layer in self.layers:
            layer.is_frozen = True
        return self

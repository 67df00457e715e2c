"""Prompts read by packed rows: what they have in common once, and no padding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache, DynamicLayer

from lm_eval_amplify.scoring.batches import Budget, batches, collate
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.plan import Limits, plan
from lm_eval_amplify.scoring.prefix_cache import PrefixCache
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.rows import Row
from lm_eval_amplify.scoring.tries import Forest

_ROW = 512
"""Tokens of a row, beyond what all its prompts share: a row that shares nothing with others computes that once."""

_WORTH = 0.9
"""Share of the padded tokens above which it does not pay."""


class PackedPrompts:
    """Reads the prompts of a generation into a cache of keys and values, as if each had been a row padded on the left.

    Args:
        forward: Of a model that computes several inputs in a row and fills a cache with them.
        longest: The longest prompt that it does that for; None: any.
    """

    def __init__(self, forward: Forward, longest: int | None = None) -> None:
        self._forward = forward
        self._longest = longest

    def read(self, input_ids: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor | None:
        """Fill the cache in a generation's state; return the logits behind the prompts, ``[rows, 1, vocabulary]``.

        Args:
            input_ids: Padded on the left, ``[rows, positions]``.
            state: Arguments that transformers' generation carries from step to step.

        Returns:
            None, and the cache as it was, where it would save little, where the state has more than is known here,
            and where logits are not finite: a prompt may owe that to others in its row.
        """
        cache, mask = _cache_of(state), state.get("attention_mask")
        if cache is None or not isinstance(mask, torch.Tensor) or mask.shape != input_ids.shape:
            return None
        rows, length = input_ids.shape
        real = mask.cpu().numpy().astype(bool)
        lengths = real.sum(axis=1).tolist()
        if not (real[:, 1:] >= real[:, :-1]).all() or min(lengths) == 0:  # else padding is on the left alone
            return None
        if self._longest is not None and max(lengths) > self._longest:
            return None
        scored = [
            Scored(tokens[length - own :], own - 1, np.zeros(1, np.int64))
            for tokens, own in zip(input_ids.cpu().numpy(), lengths, strict=True)
        ]
        forest = Forest.of(scored, range(rows))
        if sum(map(len, forest.inputs)) - int(forest.shared.sum()) > _WORTH * rows * length:
            return None
        packed = plan(forest, scored, Limits(_ROW, rows, 0), trees=True, cache=False).rows
        logits: dict[int, torch.Tensor] = {}
        filled: list[tuple[torch.Tensor, torch.Tensor]] = []
        for chosen in batches(packed, 0, Budget(rows * length, rows)):
            batch, found = collate(chosen, 0), PrefixCache()
            answers = self._forward.logits(batch, found)
            if not bool(torch.isfinite(answers.amax(dim=-1)).all()):
                return None
            logits.update(zip(batch.requests.tolist(), answers[batch.which.to(answers.device)], strict=True))
            _spread(chosen, found, filled, rows, length)
        for number in range(len(filled)):
            cache.update(*filled.pop(0), number)  # which copies a layer
        return torch.stack([logits[row] for row in range(rows)]).unsqueeze(1)


def _cache_of(state: Mapping[str, Any]) -> DynamicCache | None:
    """Return the state's cache if it is a plain growing one without anything in it, beside nothing else of the rows."""
    found = None
    for name, value in state.items():
        if type(value) is DynamicCache and all(type(layer) is DynamicLayer for layer in value.layers):
            found = value
        elif isinstance(value, torch.Tensor) and value.dim() > 0:
            if name not in ("attention_mask", "position_ids") or value.dim() != 2:
                return None
        elif not isinstance(value, bool | int | float | str | torch.Tensor | None):
            return None
    return found if found is not None and not found.offloading and found.get_seq_length() == 0 else None


def _spread(
    chosen: list[Row], found: PrefixCache, filled: list[tuple[torch.Tensor, torch.Tensor]], rows: int, length: int
) -> None:
    """Copy each prompt's keys and values from its packed row to its own, of all layers, which are emptied.

    What lies where padding was does not matter: nothing sees it.
    """
    width = max(map(len, chosen))
    requests = torch.from_numpy(np.concatenate([row.requests for row in chosen]))
    places = torch.from_numpy(
        np.stack([
            number * width + np.pad(path, (length - len(path), 0))
            for number, row in enumerate(chosen)
            for path in map(partial(_path, row.ends()), row.places.tolist())
        ])
    )  # fmt: skip
    for number, layer in enumerate(found.layers):
        parts = layer.keys, layer.values  # [packed rows, heads, width, size]
        if len(filled) == number:
            keys, values = (part.new_zeros(rows, part.shape[1], length, part.shape[3]) for part in parts)
            filled.append((keys, values))
        for own, part in zip(filled[number], parts, strict=True):
            flat = part.transpose(0, 1).flatten(1, 2)  # [heads, packed rows * width, size]
            own[requests.to(own.device)] = flat[:, places.to(own.device)].transpose(0, 1)
        layer.keys = layer.values = None


def _path(ends: NDArray[np.int64], last: int) -> NDArray[np.int64]:
    """The places of an input's tokens, which ends at ``last``: those that its last token sees."""
    return np.flatnonzero(ends[: last + 1] > last)

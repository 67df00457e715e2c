"""Rows as the tensors of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_amplify.scoring.rows import Row


class Budget(NamedTuple):
    """What a forward pass may hold, unless a single row is more.

    Attributes:
        tokens: Rows times their length, prefix included.
        scored: Positions with logits.
    """

    tokens: int
    scored: int


@dataclass(frozen=True, eq=False)
class Batch:
    """One forward pass.

    Attributes:
        ids: Tokens, int64 ``[rows, length]``, padded on the right with token 0, as the harness does.
        positions: Of the tokens in their inputs, int64 ``[rows, length]``; None: as the model has them by itself.
        ends: For each token, the place in its row behind the last one that may attend to it, int64 ``[rows, length]``:
            one at ``i`` attends to all of the prefix and to those at ``j <= i < ends[j]``; None: to all before it, as
            the model has it by itself.
        prefix: Tokens in the cache.
        roles: Which tokens are of continuations, bool ``[rows, length]``; None where that does not matter.
        selected: Where something is scored, in ``ids`` laid out flat, int64 ``[selected]``.
        which: Of those, for each pair of a position and a token that is scored there, int64 ``[pairs]``.
        targets: The tokens, int64 ``[pairs]``.
        requests: The requests that score them, by number, int64 ``[pairs]``.
    """

    ids: torch.Tensor
    positions: torch.Tensor | None
    ends: torch.Tensor | None
    prefix: int
    roles: torch.Tensor | None
    selected: torch.Tensor
    which: torch.Tensor
    targets: torch.Tensor
    requests: NDArray[np.int64]


def batches(rows: Sequence[Row], prefix: int, budget: Budget) -> Iterator[list[Row]]:
    """Yield rows of about the same length together, the longest first.

    Args:
        rows: Rows behind the same prefix.
        prefix: Its length.
        budget: Of a batch.
    """
    chosen: list[Row] = []
    scored = 0
    for row in sorted(rows, key=len, reverse=True):
        more = len(np.unique(row.places))
        size = (len(chosen) + 1) * (prefix + len(chosen[0])) if chosen else 0
        if chosen and (size > budget.tokens or scored + more > budget.scored):
            yield chosen
            chosen, scored = [], 0
        chosen.append(row)
        scored += more
    if chosen:
        yield chosen


def collate(rows: Sequence[Row], prefix: int) -> Batch:
    """Return the batch of some rows behind the same prefix."""
    length = max(map(len, rows))
    is_plain = all(row.is_plain for row in rows)
    roles = [_padded(row.roles, length) for row in rows if row.roles is not None]
    places = np.concatenate([number * length + row.places for number, row in enumerate(rows)])
    selected, which = np.unique(places, return_inverse=True)
    return Batch(
        ids=_tensor([_padded(row.tokens, length) for row in rows]),
        positions=None if is_plain else _tensor([_padded(row.positions, length) for row in rows]),
        ends=None if is_plain else _tensor([_ends(row, length) for row in rows]),
        prefix=prefix,
        roles=_tensor(roles) if roles else None,
        selected=torch.from_numpy(selected),
        which=torch.from_numpy(which),
        targets=torch.from_numpy(np.concatenate([row.targets for row in rows])),
        requests=np.concatenate([row.requests for row in rows]),
    )


def _tensor(rows: Sequence[NDArray[Any]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(rows))


def _padded(values: NDArray[Any], length: int) -> NDArray[Any]:
    return np.pad(values, (0, length - len(values)))


def _ends(row: Row, length: int) -> NDArray[np.int64]:
    """Padding sees itself, because a softmax over nothing is not a number."""
    return np.concatenate([row.ends(), np.arange(len(row) + 1, length + 1)])

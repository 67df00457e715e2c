"""Rows of tokens that a model computes together: several inputs in one, a beginning that they share once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest


@dataclass(frozen=True, eq=False)
class Row:
    """A part of a trie, as one row of a batch; everything before it, its prefix, is in a cache.

    Attributes:
        tokens: int64 ``[n]``.
        positions: Of each token in its own input, int64 ``[n]``; the prefix has those before the smallest.
        parents: The place in the row of the token before it in its input, int64 ``[n]``; -1: the prefix's last.
        roles: Which are of continuations, bool ``[n]``, or None; see :class:`~lm_eval_amplify.scoring.tries.Forest`.
        places: Places in the row whose logits score something, int64 ``[pairs]``.
        targets: The token that is scored there, int64 ``[pairs]``.
        requests: For which request, by number, int64 ``[pairs]``.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    parents: NDArray[np.int64]
    roles: NDArray[np.bool_] | None
    places: NDArray[np.int64]
    targets: NDArray[np.int64]
    requests: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_plain(self) -> bool:
        """Whether it is one input and its beginnings, without a prefix: what a model computes by itself."""
        return self.positions[0] == 0 and np.array_equal(self.parents, np.arange(-1, len(self) - 1))

    def ends(self) -> NDArray[np.int64]:
        """Return for each token the place behind the last one that sees it, int64 ``[n]``.

        The tokens that see it are those from itself to there, because a row is a depth-first walk through a trie.
        """
        ends = np.arange(1, len(self) + 1)
        starts = np.flatnonzero(self.parents != np.arange(-1, len(self) - 1)).tolist()
        bounds = [0, *(start for start in starts if start), len(self)]
        for start, end in reversed(list(pairwise(bounds))):
            ends[start:end] = np.maximum.accumulate(ends[start:end][::-1])[::-1]
            if (parent := self.parents[start]) >= 0:
                ends[parent] = max(ends[parent], ends[start])
        return ends


def row_of(forest: Forest, scored: Sequence[Scored], first: int, last: int, prefix: int) -> Row:
    """Return the row of some neighbouring inputs without the first ``prefix`` tokens, which they share.

    Args:
        forest: Inputs.
        scored: Requests, for what they score at ``prefix`` and behind.
        first: The first of the inputs.
        last: The last.
        prefix: A number of tokens.
    """
    path = np.empty(0, np.int64)  # places of the current input's tokens
    parts = _Parts()
    for number in range(first, last + 1):
        start = prefix if number == first else int(forest.shared[number])
        path = np.concatenate((path[: start - prefix], parts.add(forest, number, start, path[: start - prefix])))
        parts.score(forest, scored, number, prefix, prefix + len(path), path)
    return parts.row()


def prefix_row(forest: Forest, scored: Sequence[Scored], first: int, last: int, start: int, end: int) -> Row:
    """Return tokens ``start`` to ``end`` of some inputs, which they share, with all that the inputs score there."""
    parts = _Parts()
    path = parts.add(forest, first, start, np.empty(0, np.int64), end)
    for number in range(first, last + 1):
        parts.score(forest, scored, number, start, end, path)
    return parts.row()


class _Parts:
    """A row in the making."""

    def __init__(self) -> None:
        self._length = 0
        self._tokens: list[NDArray[np.int64]] = []
        self._positions: list[NDArray[np.int64]] = []
        self._parents: list[NDArray[np.int64]] = []
        self._roles: list[NDArray[np.bool_]] | None = []
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []

    def add(
        self, forest: Forest, number: int, start: int, path: NDArray[np.int64], end: int | None = None
    ) -> NDArray[np.int64]:
        """Append an input's tokens from ``start`` on behind those of ``path``; return their places."""
        tokens = forest.inputs[number][start:end]
        places = np.arange(self._length, self._length + len(tokens))
        self._length += len(tokens)
        self._tokens.append(tokens)
        self._positions.append(np.arange(start, start + len(tokens)))
        self._parents.append(np.concatenate((path[-1:] if len(path) else np.array([-1]), places[:-1]))[: len(tokens)])
        if forest.roles is None:
            self._roles = None
        elif self._roles is not None:
            self._roles.append(forest.roles[number][start:end])
        return places

    def score(
        self, forest: Forest, scored: Sequence[Scored], number: int, start: int, end: int, path: NDArray[np.int64]
    ) -> None:
        """Note what an input's requests score at positions ``start`` to ``end``, which are at the places ``path``."""
        for request in forest.requests[number]:
            one = scored[request]
            begin = max(start, one.first)
            targets = one.targets[begin - one.first : end - one.first] if end > begin else one.targets[:0]
            self._pairs.append((path[begin - start : end - start], targets, np.full(len(targets), request)))

    def row(self) -> Row:
        places, targets, requests = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
        return Row(
            tokens=np.concatenate(self._tokens),
            positions=np.concatenate(self._positions),
            parents=np.concatenate(self._parents),
            roles=np.concatenate(self._roles) if self._roles is not None else None,
            places=places,
            targets=targets,
            requests=requests,
        )

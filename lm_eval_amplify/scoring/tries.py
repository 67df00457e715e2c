"""Requests in the order of a trie: sorted, so that those with a common beginning stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.scoring.requests import Scored


@dataclass(frozen=True, eq=False)
class Forest:
    """Requests' inputs, each once, in the order of a depth-first walk through their trie.

    Attributes:
        inputs: Tokens of each input, int64 ``[length]``.
        roles: For each, which positions are of the continuation (their logits predict one of its tokens), bool
            ``[length]``; None where roles do not matter.
        shared: With how many tokens each begins like the one before it; 0 for the first. An input that is the
            beginning of another stands before it.
        requests: For each, the requests with this input, by number.
    """

    inputs: list[NDArray[np.int64]]
    roles: list[NDArray[np.bool_]] | None
    shared: NDArray[np.int64]
    requests: list[list[int]]

    @classmethod
    def of(cls, scored: Sequence[Scored], numbers: Iterable[int], *, by_role: bool = False) -> Forest:
        """Arrange the requests with these numbers.

        Args:
            scored: Requests.
            numbers: Of those to arrange.
            by_role: Whether a token of a context and one of a continuation are different: an intervention treats them
                differently.
        """
        found: dict[bytes, list[int]] = {}
        for number in numbers:
            found.setdefault(_key(scored[number], by_role), []).append(number)
        ordered = sorted(found)  # bytes of the most significant first: as the tokens, and the shorter one first
        symbols = [np.frombuffer(key, _SYMBOL).astype(np.int64) for key in ordered]
        shared = [_common(one, other) for one, other in pairwise(symbols)]
        return cls(
            inputs=[own >> 1 for own in symbols],
            roles=[(own & 1).astype(bool) for own in symbols] if by_role else None,
            shared=np.array([0, *shared][: len(symbols)], np.int64),
            requests=[found[key] for key in ordered],
        )

    def __len__(self) -> int:
        return len(self.inputs)


_SYMBOL = np.dtype(">u4")


def _key(one: Scored, by_role: bool) -> bytes:
    symbols = one.tokens << 1
    if by_role:
        symbols[one.first :] |= 1
    return symbols.astype(_SYMBOL).tobytes()


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length

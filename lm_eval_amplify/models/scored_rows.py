"""Which request a row of stock scoring's input is.

HFLM sorts requests, shares a row among those with the same context and continuation but for the last token, cuts rows
on the left, pads them with zeros on the right, and passes no mask: a row is known by its tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch

from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.intervention import Positions
from lm_eval_amplify.positions import scored_positions

Request: TypeAlias = tuple[Any, list[int], list[int]]
"""Texts, tokens of the context, tokens of the continuation."""

_PADDING = 0


def unambiguous_parts(requests: Sequence[Request], max_length: int) -> list[list[int]]:
    """Return numbers of requests in parts, so that in rows of a part that are equal the prompt ends at one place.

    Nearly always there is one part: more take a context that ends within another's continuation.
    """
    parts: list[list[int]] = []
    seen: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        tokens, last = _row(request, max_length)
        ends = seen.setdefault(tokens, [])
        if last not in ends:
            ends.append(last)
        place = ends.index(last)
        if place == len(parts):
            parts.append([])
        parts[place].append(number)
    return parts


class ScoredRows:
    """The requests of one of the parts, by the rows that they become."""

    def __init__(self, requests: Sequence[Request], max_length: int) -> None:
        self._last: Mapping[tuple[int, ...], int] = dict(_row(request, max_length) for request in requests)

    def masks(self, rows: torch.Tensor, positions: Positions) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return where an intervention acts, and which tokens are the prompt's.

        See :func:`~lm_eval_amplify.positions.scored_positions`.

        Args:
            rows: Tokens, ``[batch, positions]``.
            positions: Of the intervention.

        Raises:
            ModelError: A row is no request's.
        """
        try:
            last = [self._last[_stripped(row)] for row in rows.tolist()]
        except KeyError as error:
            raise ModelError(
                f"positions={positions}: the harness scores a row that is no request's; this version of it arranges "
                "them in another way"
            ) from error
        return scored_positions(torch.tensor(last, device=rows.device), rows.shape[1], positions)


def _row(request: Request, max_length: int) -> tuple[tuple[int, ...], int]:
    """The row's tokens but for zeros at the end, and the position of the prompt's last token in it."""
    _, context, continuation = request
    tokens = (context + continuation)[-(max_length + 1) :][:-1]
    return _stripped(tokens), len(tokens) - len(continuation)


def _stripped(tokens: Sequence[int]) -> tuple[int, ...]:
    length = len(tokens)
    while length and tokens[length - 1] == _PADDING:
        length -= 1
    return tuple(tokens[:length])

"""Which request a row of stock scoring's input is.

HFLM sorts requests, shares a row among those with the same context and continuation but for the last token, cuts rows
on the left, pads them with zeros on the right, and passes no mask: a row is known by its tokens alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.intervention import Positions

Request: TypeAlias = tuple[Any, list[int], list[int]]
"""Texts, tokens of the context, tokens of the continuation."""

_PADDING = 0


class Span(NamedTuple):
    """Where in a row its request is."""

    last_of_prompt: int
    """Position of the prompt's last token, whose logits predict the first token of the continuation."""
    length: int
    """Number of its tokens; padding comes after them."""


def unambiguous_parts(requests: Sequence[Request], max_length: int) -> list[list[int]]:
    """Return numbers of requests in parts, so that rows of a part that are equal but for padding have one span.

    Nearly always there is one part: more take a context that ends within another's continuation, or the token 0 at
    the end of one.
    """
    parts: list[list[int]] = []
    seen: dict[tuple[int, ...], list[Span]] = {}
    for number, request in enumerate(requests):
        key, span = _row(request, max_length)
        spans = seen.setdefault(key, [])
        if span not in spans:
            spans.append(span)
        place = spans.index(span)
        if place == len(parts):
            parts.append([])
        parts[place].append(number)
    return parts


class ScoredRows:
    """The requests of one of the parts, by the rows that they become."""

    def __init__(self, requests: Sequence[Request], max_length: int) -> None:
        self._spans: Mapping[tuple[int, ...], Span] = dict(_row(request, max_length) for request in requests)

    def masks(self, rows: torch.Tensor, positions: Positions) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return where an intervention at these positions acts, None: everywhere; and which tokens are the prompt's.

        Args:
            rows: Tokens, ``[batch, positions]``; the masks are bool of this shape, on the same device.
            positions: See :data:`~lm_eval_amplify.intervention.Positions`.

        Raises:
            ModelError: A row is no request's.
        """
        try:
            spans = [self._spans[_stripped(row)] for row in rows.tolist()]
        except KeyError as error:
            raise ModelError(
                f"positions={positions}: the harness scores a row that is no request's; this version of it arranges "
                "them in another way"
            ) from error
        last, length = torch.tensor(spans, device=rows.device).unsqueeze(-1).unbind(dim=1)
        at = torch.arange(rows.shape[1], device=rows.device)
        prompt = at <= last
        if positions == "all":
            return None, prompt
        return (at < last if positions == "prompt" else (at >= last) & (at < length)), prompt


def _row(request: Request, max_length: int) -> tuple[tuple[int, ...], Span]:
    _, context, continuation = request
    tokens = (context + continuation)[-(max_length + 1) :][:-1]
    return _stripped(tokens), Span(len(tokens) - len(continuation), len(tokens))


def _stripped(tokens: Sequence[int]) -> tuple[int, ...]:
    length = len(tokens)
    while length and tokens[length - 1] == _PADDING:
        length -= 1
    return tuple(tokens[:length])

"""Which inputs share a row, and which beginnings are computed once for several rows: decided before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.rows import Row, prefix_row, row_of
from lm_eval_amplify.scoring.tries import Forest


class Limits(NamedTuple):
    """How large a row may become, unless a single input is larger, and when a prefix is one.

    Attributes:
        tokens: Of a row, beyond those that all its inputs share.
        scored: Positions with logits.
        worth: A prefix is computed by itself if that saves more tokens than this.
    """

    tokens: int
    scored: int
    worth: int


@dataclass
class Group:
    """Rows behind one prefix.

    Attributes:
        prefix: The part of the prefix that the group around it has not computed; None: nothing.
        length: Of the whole prefix, in tokens.
        rows: To run behind it.
        groups: With longer prefixes.
    """

    prefix: Row | None = None
    length: int = 0
    rows: list[Row] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def all_rows(self) -> Iterator[Row]:
        """Yield every row, prefixes among them."""
        if self.prefix is not None:
            yield self.prefix
        yield from self.rows
        for group in self.groups:
            yield from group.all_rows()


class _Span(NamedTuple):
    """Neighbouring inputs of one row, and how many tokens all of them share."""

    first: int
    last: int
    common: int


def plan(forest: Forest, scored: Sequence[Scored], limits: Limits, *, trees: bool, cache: bool) -> Group:
    """Return all rows of a forest.

    Args:
        forest: Inputs.
        scored: Requests.
        limits: Of rows and prefixes.
        trees: Whether a row may hold inputs of which none is the beginning of the other.
        cache: Whether rows may have a prefix.
    """
    spans = list(_spans(forest, scored, limits, trees))
    whole = Group()
    if cache and trees and len(forest):
        _divide(forest, scored, spans, whole, limits.worth)
    else:
        whole.rows = [row_of(forest, scored, span.first, span.last, 0) for span in spans]
    return whole


def _spans(forest: Forest, scored: Sequence[Scored], limits: Limits, trees: bool) -> Iterator[_Span]:
    """Fill rows with neighbours, as long as they fit."""
    if not len(forest):
        return
    # Where an input is scored first; it is from there to its end.
    starts = [min(scored[one].first for one in requests) for requests in forest.requests]
    first, common, size, is_chain = 0, len(forest.inputs[0]), len(forest.inputs[0]), True
    positions = size - starts[0]
    is_scored = np.arange(size) >= starts[0]  # the last input's tokens, by this row
    for number in range(1, len(forest)):
        shared, length = int(forest.shared[number]), len(forest.inputs[number])
        is_scored = np.pad(is_scored[:shared], (0, length - shared))
        grown, more = size + length - shared, positions + int(np.count_nonzero(~is_scored[starts[number] :]))
        fits = grown - min(common, shared) <= limits.tokens and more <= limits.scored
        is_chain = is_chain and shared == len(forest.inputs[number - 1])
        if (fits and trees) or (is_chain and more <= limits.scored):
            common, size, positions = min(common, shared), grown, more
        else:
            yield _Span(first, number - 1, common)
            first, common, size, positions, is_chain = number, length, length, length - starts[number], True
            is_scored = np.zeros(length, bool)
        is_scored[starts[number] :] = True
    yield _Span(first, len(forest) - 1, common)


def _divide(forest: Forest, scored: Sequence[Scored], spans: Sequence[_Span], group: Group, worth: int) -> None:
    """Put neighbouring rows into a group, those of them that share more than it has into groups of their own."""
    first, last = spans[0].first, spans[-1].last
    if len(spans) == 1:
        if group.length < len(forest.inputs[last]):  # else the prefix is all there is
            group.rows.append(row_of(forest, scored, first, last, group.length))
        return
    borders = [int(forest.shared[span.first]) for span in spans[1:]]
    common = min(*borders, *(span.common for span in spans))
    inner = group
    if (common - group.length) * (len(spans) - 1) > worth:
        prefix = prefix_row(forest, scored, first, last, group.length, common)
        inner = Group(prefix, common)
        group.groups.append(inner)
    # Parts that share more than all do: between the borders, and the rows, that share no more.
    part: list[_Span] = []
    for number, span in enumerate(spans):
        cut = number and borders[number - 1] == common
        if part and (cut or span.common == common or part[-1].common == common):
            _divide(forest, scored, part, inner, worth)
            part = []
        part.append(span)
    _divide(forest, scored, part, inner, worth)

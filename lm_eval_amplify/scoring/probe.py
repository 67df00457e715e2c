"""What a model can do, found out by trying: packed rows against plain forward passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from lm_eval_amplify.scoring.batches import Batch, Budget, collate
from lm_eval_amplify.scoring.engine import Abilities
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.plan import Group, Limits, plan
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest
from lm_eval_amplify.scoring.walk import walk

Plain = Callable[[torch.Tensor], torch.Tensor]
"""The harness's own forward pass: tokens ``[rows, length]`` to logits ``[rows, length, vocabulary]``."""

_WINDOW = re.compile(r"\w*(window|chunk)(_size|_length|_len)?")
_CLOSE = 1e-4, 1e-6
"""By how much log-probabilities may differ in float32: absolutely, and as a share."""

_ROUNDINGS = 16
"""And beyond that so many roundings of the largest, if a model that ignores masks or positions would be off by much
more: half types."""

_BUDGET = Budget(1024, 1024)
_WHOLE, _SMALL = Limits(64, 64, 0), Limits(1, 64, 0)
"""All in one row; many rows with prefixes."""


class Finding(NamedTuple):
    """What the probe found.

    Attributes:
        abilities: Of the model; None: only the harness's own scoring gives its answers.
        reasons: Why something is not used, a part each; the harness's own scoring or a part of the fast one.
    """

    abilities: Abilities | None
    reasons: tuple[str, ...]


def probe(
    forward: Forward,
    plain: Plain,
    conditions: Sequence[Callable[[], AbstractContextManager[None]]],
    *,
    vocabulary: int,
    max_length: int,
    config: object,
) -> Finding:
    """Try what a model can do, best first, on a few rows of tokens from all over its vocabulary.

    Costs a few forward passes of some forty tokens under each condition, and further ones where something is not as
    in the plain model.

    Args:
        forward: The model.
        plain: The same, as the harness runs it.
        conditions: Contexts under which both must agree: without and with the intervention.
        vocabulary: Number of tokens that the model knows.
        max_length: Of inputs.
        config: The model's configuration; the width of an attention window, if there is one, is read from it.
    """
    longest = attention_window(config)
    scored = _requests(vocabulary, min(max_length, longest or max_length))
    reasons: tuple[str, ...] = ()
    for abilities, otherwise in (
        (Abilities(trees=True, cache=True, longest=longest), "a prefix is computed again in each row"),
        (Abilities(trees=True, cache=False, longest=longest), "contexts are not shared"),
        (Abilities(trees=False, cache=False), "HFLM scores"),
    ):
        for condition in conditions:
            with condition():
                expected = _plain_logprobs(plain, scored, forward.device)
                difference = _difference(forward, abilities, scored, expected)
            if difference is not None:
                reasons = (f"{otherwise} ({difference})",)
                break
        else:
            if not forward.only_selected:
                reasons = (*reasons, "logits are computed at all positions (its LM head is not a module of its own)")
            return Finding(abilities, reasons)
    return Finding(None, reasons)


def attention_window(config: object) -> int | None:
    """Return the number of tokens up to which every layer of a model sees all that came before; None: any number."""
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    widths = [value for name, value in vars(config).items() if _WINDOW.fullmatch(name) and isinstance(value, int)]
    return min((width for width in widths if width > 0), default=None)


def _requests(vocabulary: int, max_length: int) -> list[Scored]:
    """Options of one context, one the beginning of another; a context with the same beginning; an unrelated one.

    Few and short: the harness's logits are of all positions, and should take no more memory here than in a batch.
    """
    tokens = np.linspace(0.1 * vocabulary, 0.9 * vocabulary, 21).astype(int).tolist()
    context, other = tokens[:4], [*tokens[:2], *tokens[4:6]]
    pairs = [
        (context, tokens[6:7]),
        (context, tokens[7:8]),
        (context, tokens[8:11]),
        (context, tokens[8:13]),
        (other, tokens[13:15]),
        (other, tokens[12:15]),
        (tokens[15:17], tokens[17:21]),
    ]
    return [Scored.cut(before, after, max(max_length, len(after))) for before, after in pairs]


def _plans(abilities: Abilities, scored: Sequence[Scored]) -> Iterator[Group]:
    """All in one row, and in many small ones, those with the same beginning behind a prefix where there may be one."""
    forest = Forest.of(scored, range(len(scored)))
    yield plan(forest, scored, _SMALL, trees=abilities.trees, cache=abilities.cache)
    yield plan(forest, scored, _WHOLE, trees=abilities.trees, cache=False)


def _difference(
    forward: Forward, abilities: Abilities, scored: Sequence[Scored], expected: Sequence[torch.Tensor]
) -> str | None:
    """Return what went wrong or is too different, or None."""
    found = _Off(scored, expected)
    try:
        for group in _plans(abilities, scored):
            for batch, logits in walk(group, forward, _BUDGET):
                found.look(batch, logits)
            found.end()
    except Exception as error:  # noqa: BLE001  # whatever a model raises that cannot do it
        said = str(error).strip().partition("\n")[0]
        return f"{type(error).__name__}: {said[:160]}"
    if found.is_close:
        return None
    rounding = _ROUNDINGS * torch.finfo(forward.dtype).eps * found.largest
    if found.worst <= rounding and (not abilities.trees or found.worst <= _ignorant(forward, scored, expected) / 4):
        return None
    return f"log-probabilities differ by {found.worst:.2g}"


def _ignorant(forward: Forward, scored: Sequence[Scored], expected: Sequence[torch.Tensor]) -> float:
    """Return by how much log-probabilities would differ if the model ignored what tokens see, or their positions."""
    (row,) = plan(Forest.of(scored, range(len(scored))), scored, _WHOLE, trees=True, cache=False).rows
    batch = collate([row], 0)
    found = []
    for poorer in (replace(batch, ends=None), replace(batch, positions=None)):
        off = _Off(scored, expected)
        off.look(poorer, forward.logits(poorer))
        found.append(off.worst)
    return min(found)


class _Off:
    """How far log-probabilities are from those expected."""

    def __init__(self, scored: Sequence[Scored], expected: Sequence[torch.Tensor]) -> None:
        self.worst = self.largest = 0.0
        self.is_close = True
        self._expected = expected
        self._next = [0] * len(scored)  # a request's positions come in their order

    def look(self, batch: Batch, logits: torch.Tensor) -> None:
        """Compare a batch's."""
        logprobs = logits.float().log_softmax(-1)
        for which, request in zip(batch.which.tolist(), batch.requests.tolist(), strict=True):
            plain = self._expected[request][self._next[request]].to(logits.device)
            self._next[request] += 1
            # What is not finite in the plain model says nothing; what is, must be here.
            off = torch.where(plain.isfinite(), (logprobs[which] - plain).abs(), 0).nan_to_num(torch.inf)
            size = plain.nan_to_num(0, 0, 0).abs()
            self.is_close &= bool((off <= _CLOSE[0] + _CLOSE[1] * size).all())
            self.worst = max(self.worst, float(off.max()))
            self.largest = max(self.largest, float(size.max()))

    def end(self) -> None:
        """Begin again: another plan follows."""
        self._next = [0] * len(self._next)


def _plain_logprobs(plain: Plain, scored: Sequence[Scored], device: torch.device) -> list[torch.Tensor]:
    """Return each request's log-probabilities at its scored positions, ``[tokens, vocabulary]``, in one batch."""
    length = max(len(one.tokens) for one in scored)
    ids = np.stack([np.pad(one.tokens, (0, length - len(one.tokens))) for one in scored])
    logits = plain(torch.from_numpy(ids).to(device))
    return [logits[row, one.first : len(one.tokens)].float().log_softmax(-1) for row, one in enumerate(scored)]

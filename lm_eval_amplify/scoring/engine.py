"""Scores requests: plans, runs, sums up, and starts again with less where memory ran out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray

from lm_eval_amplify.scoring.batches import Batch, Budget
from lm_eval_amplify.scoring.devices import fetch, preferences, send
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.plan import Group, Limits, plan
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest
from lm_eval_amplify.scoring.walk import walk


@dataclass(frozen=True)
class Abilities:
    """What a model can do, beyond running inputs one by one.

    Attributes:
        trees: Compute several inputs in one row: it heeds attention masks and positions.
        cache: Continue a prefix that other rows continue too.
        longest: The longest input for which that holds; None: any.
    """

    trees: bool
    cache: bool
    longest: int | None = None


class Answer(NamedTuple):
    """A request's answer.

    Attributes:
        loglikelihood: Of the continuation.
        is_greedy: Whether each of its tokens is the likeliest.
    """

    loglikelihood: float
    is_greedy: bool


class Engine:
    """Scores requests on a model.

    Args:
        forward: The model.
        abilities: What it can do.
        dtype: Of the log-sum-exp.
    """

    def __init__(self, forward: Forward, abilities: Abilities, *, dtype: torch.dtype = torch.float32) -> None:
        self.abilities = abilities
        self.forward = forward
        self._dtype = dtype
        self._halvings = 0

    def score(self, scored: Sequence[Scored], budget: Budget, *, by_role: bool = False) -> Iterator[tuple[int, Answer]]:
        """Yield the answer to each request with its number, in the order in which they are found.

        Args:
            scored: Requests.
            budget: Of a forward pass; halved for good whenever memory runs out.
            by_role: Whether it matters which tokens are of continuations: an intervention acts on them differently.

        Raises:
            RuntimeError: Memory runs out with a single input.
        """
        open_requests = set(range(len(scored)))
        while open_requests:
            halved = Budget(*(max(1, limit >> self._halvings) for limit in budget))
            try:
                for number, answer in self._score(scored, sorted(open_requests), halved, by_role):
                    open_requests.discard(number)
                    yield number, answer
            except RuntimeError as error:
                is_oom = isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)
                if not is_oom or max(halved) == 1:
                    raise
                self._halvings += 1
            else:
                return
            gc.collect()  # only here, where the failed pass's tensors are no longer held by its traceback
            clear_device_cache()

    def groups(
        self, scored: Sequence[Scored], numbers: Iterable[int], budget: Budget, *, by_role: bool = False
    ) -> Iterator[Group]:
        """Yield the plans by which these requests are run."""
        likes = preferences(self.forward.device)
        limits = Limits(min(likes.row, budget.tokens), budget.scored, likes.worth)
        longest = self.abilities.longest
        short: list[int] = []
        long: list[int] = []
        for number in numbers:
            fits = self.abilities.trees and (longest is None or len(scored[number].tokens) <= longest)
            (short if fits else long).append(number)
        for chosen, trees in ((long, False), (short, True)):
            forest = Forest.of(scored, chosen, by_role=by_role)
            yield plan(forest, scored, limits, trees=trees, cache=self.abilities.cache)

    def _score(
        self, scored: Sequence[Scored], numbers: Sequence[int], budget: Budget, by_role: bool
    ) -> Iterator[tuple[int, Answer]]:
        """As :meth:`score`, for some requests; each batch's numbers are fetched when the next one is on its way."""
        sums = _Sums(scored)
        before: tuple[Batch, Callable[[], torch.Tensor]] | None = None
        for group in self.groups(scored, numbers, budget, by_role=by_role):
            for batch, logits in walk(group, self.forward, budget):
                found = fetch(self._reduce(batch, logits))
                if before is not None:
                    yield from self._checked(sums.add(*before), scored, by_role)
                before = (batch, found)
        if before is not None:
            yield from self._checked(sums.add(*before), scored, by_role)

    def _checked(
        self, answers: Iterable[tuple[int, Answer]], scored: Sequence[Scored], by_role: bool
    ) -> Iterator[tuple[int, Answer]]:
        """Score a request that is not finite again, in a row of its own: it may owe that to others in its row."""
        for number, answer in answers:
            is_finite = math.isfinite(answer.loglikelihood)
            yield number, answer if is_finite else self._alone(scored, number, by_role)

    def _alone(self, scored: Sequence[Scored], number: int, by_role: bool) -> Answer:
        """Score a request in a row of its own."""
        group = plan(Forest.of(scored, [number], by_role=by_role), scored, Limits(1, 1, 0), trees=False, cache=False)
        sums = _Sums(scored)
        for batch, logits in walk(group, self.forward, Budget(1, 1)):
            for _, answer in sums.add(batch, fetch(self._reduce(batch, logits))):
                return answer
        raise AssertionError("a plan has every request")

    def _reduce(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """Return each pair's log-probability and whether its token is the likeliest, ``[2, pairs]``."""
        total = torch.empty(len(logits), dtype=self._dtype, device=logits.device)
        likeliest = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
        step = max(1, preferences(logits.device).logits // logits.shape[-1])
        for start in range(0, len(logits), step):
            part = logits[start : start + step].to(self._dtype)
            total[start : start + step] = part.logsumexp(-1)
            likeliest[start : start + step] = part.argmax(-1)
        which, targets = send(batch.which, logits.device), send(batch.targets, logits.device)
        values = logits[which, targets].to(self._dtype) - total[which]
        return torch.stack([values, (likeliest[which] == targets).to(self._dtype)])


class _Sums:
    """Sums over the tokens of each request's continuation, of which a batch may have some only."""

    def __init__(self, scored: Sequence[Scored]) -> None:
        self._missing = np.array([len(one.targets) for one in scored])
        self._values = np.zeros(len(scored))
        self._greedy = np.ones(len(scored), bool)

    def add(self, batch: Batch, found: Callable[[], torch.Tensor]) -> Iterator[tuple[int, Answer]]:
        """Take a batch's numbers, and yield the answers that are complete.

        Args:
            batch: The batch.
            found: Returns what :meth:`Engine._reduce` returned for it, on the CPU.
        """
        values, hits = found().double().numpy()
        np.add.at(self._values, batch.requests, values)
        np.logical_and.at(self._greedy, batch.requests, hits.astype(bool))
        np.subtract.at(self._missing, batch.requests, 1)
        touched: NDArray[np.int64] = np.unique(batch.requests)
        for number in touched[self._missing[touched] == 0].tolist():
            yield number, Answer(float(self._values[number]), bool(self._greedy[number]))

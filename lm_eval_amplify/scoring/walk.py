"""Runs a plan: prefixes before the rows that begin with them, each kept for no longer than it is needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lm_eval_amplify.scoring.batches import Batch, Budget, batches, collate
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.plan import Group
from lm_eval_amplify.scoring.prefix_cache import PrefixCache


def walk(
    group: Group, forward: Forward, budget: Budget, cache: PrefixCache | None = None
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield every batch of a plan with the logits at its selected positions, ``[selected, vocabulary]``.

    Args:
        group: The plan.
        forward: Of the model.
        budget: Of a batch.
        cache: Of the prefix of the group around this one.
    """
    if group.prefix is not None:
        longer = PrefixCache(cache)
        batch = collate([group.prefix], group.length - len(group.prefix))
        yield batch, forward.logits(batch, longer)
        cache = longer.freeze()
    for rows in batches(group.rows, group.length, budget):
        batch = collate(rows, group.length)
        yield batch, forward.logits(batch, cache)
    for inner in group.groups:
        yield from walk(inner, forward, budget, cache)

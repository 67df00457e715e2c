"""Statistics of the running input, taken where the activation is: of a layer, over all its neurons.

| name | of each sequence |
| --- | --- |
| batch_p10, batch_median, batch_p90 | quantiles over the real tokens of its prompt, interpolated linearly |
| batch_mean, batch_max | mean and maximum over them |
| running_max | at each position, the maximum over this and all earlier ones, generated or scored tokens too |

Never of padding, nor of another sequence of the batch. Taken of the activation before the intervention in its layer,
but after those in earlier layers. With a cache, batch statistics are those of the prompt's pass; the running maximum
goes on from pass to pass, so that it is what it would be without.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch

from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import TestTime
from lm_eval_amplify.positions import Pass

_QUANTILES: dict[str, float] = {"batch_p10": 0.1, "batch_median": 0.5, "batch_p90": 0.9}


def statistic_of(
    name: TestTime, activation: torch.Tensor, now: Pass, layer: int, kept: MutableMapping[int, torch.Tensor]
) -> torch.Tensor:
    """Return a statistic, ``[rows, 1, 1]`` or ``[rows, positions, 1]``.

    Args:
        name: Which.
        activation: ``[rows, positions, d_ff]``.
        now: The pass.
        layer: Of the activation.
        kept: By layer, from earlier passes; gets what later ones need.

    Raises:
        InterventionError: Nobody said what the prompt is, or it comes in several passes, of which none has the
            statistic.
    """
    if now.is_first and now.prompt is None:
        raise InterventionError(f"statistic={name} needs prompt=: which positions are the prompt's real tokens")
    if name == "running_max":
        return _running_max(activation.amax(dim=-1, keepdim=True), now, layer, kept)
    if now.prompt is not None:
        if not now.is_whole:
            raise InterventionError(f"statistic={name}: the prompt is computed in parts; leave prefill_chunk_size out")
        kept[layer] = _of_prompt(name, activation, now.prompt.to(activation.device))
    return kept[layer]


def _running_max(own: torch.Tensor, now: Pass, layer: int, kept: MutableMapping[int, torch.Tensor]) -> torch.Tensor:
    counted = own
    if now.prompt is not None:  # padding on the left does not count, and on the right nothing comes after it
        has_begun = now.prompt.cumsum(dim=1).bool().unsqueeze(-1).to(own.device)
        counted = own.masked_fill(~has_begun, -torch.inf)
    running = counted.cummax(dim=1).values
    if not now.is_first:
        running = torch.maximum(running, kept[layer])
    kept[layer] = running[:, -1:]
    # What padding itself is given must be a number: attention multiplies it by zero.
    return torch.where(running.isneginf(), own, running)


def _of_prompt(name: str, activation: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    padding = ~prompt.unsqueeze(-1)
    if name == "batch_max":
        return activation.masked_fill(padding, -torch.inf).amax(dim=(1, 2), keepdim=True)
    if name == "batch_mean":
        total = activation.masked_fill(padding, 0).sum(dim=(1, 2), keepdim=True)
        return total / (prompt.sum(dim=1) * activation.shape[-1]).view(-1, 1, 1)
    rows = [_quantile(row[real], _QUANTILES[name]) for row, real in zip(activation, prompt, strict=True)]
    return torch.stack(rows).view(-1, 1, 1)


def _quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    """As torch.quantile, which takes no more than 16 million values."""
    flat = values.flatten()
    rank = share * (flat.numel() - 1)
    below = int(rank)
    low = flat.kthvalue(below + 1).values
    if rank == below:
        return low
    # The next one, which is the same where several are; quicker than a second search.
    higher = flat.masked_fill(flat <= low, torch.inf).amin()
    following = torch.where((flat <= low).sum() > below + 1, low, higher)
    return torch.lerp(low, following, rank - below)

"""Whether a model generates the same when rows leave the batch: tried on a few tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lm_eval_amplify.generation.ends import Ends, TokenTexts
from lm_eval_amplify.generation.loop import GreedyLoop, OfRows, RowsLeft, UnsuitedError
from lm_eval_amplify.generation.prompts import PackedPrompts

_LENGTHS = (5, 4, 2)
"""Tokens of the probe's prompts."""

_LEAVES_AFTER = (2, 1, 3)
"""Tokens after which its rows leave: at each step one, and the last is not the first row."""

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Of the largest logit; that of another row would differ by about as much as the logits themselves."""
_TOLERANCE_OF_HALF_TYPES = 0.05


def obstacle(
    generate: Callable[..., torch.Tensor],
    context: torch.Tensor,
    dtype: torch.dtype,
    rows_left: RowsLeft | None = None,
    prompts: PackedPrompts | None = None,
) -> str | None:
    """Return why rows must not leave a model's batches, or its prompts not be read so; None where they may.

    Generates three tokens for three prompts twice, by transformers' loop and by ours, and compares the logits.

    Args:
        generate: The harness model's method that generates for a batch.
        context: Tokens that it will generate for, ``[rows, positions]``.
        dtype: Of the model.
        rows_left: What the loop will be made with.
        prompts: The same.
    """
    longest, steps = max(_LENGTHS), max(_LEAVES_AFTER)
    line = context[0].repeat(longest)[-longest:]
    tokens = line.repeat(len(_LENGTHS), 1)
    is_real = torch.tensor([[place >= longest - length for place in range(longest)] for length in _LENGTHS])

    def logits_of(**options: Any) -> list[dict[int, torch.Tensor]]:
        logits = _Logits()
        generate(
            context=tokens,
            attention_mask=is_real.to(context.device, torch.long),
            max_length=longest + steps,
            min_length=longest + steps,
            stop=[],
            do_sample=False,
            logits_processor=[logits],
            **options,
        )
        return logits.by_step

    try:
        ours = logits_of(custom_generate=_LeavingOnTime(TokenTexts(None), rows_left, prompts))
    except UnsuitedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # models fail in whatever way at what they are not made for
        return f"rows cannot be taken out of it: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
    tolerance = _TOLERANCE.get(dtype, _TOLERANCE_OF_HALF_TYPES)
    for found, expected in zip(ours, logits_of(), strict=True):
        for row, logits in found.items():
            if not _close(logits, expected[row], tolerance):
                return "where a row has been taken out, the others' logits differ"
    return None


class _Logits(OfRows):
    """Keeps the logits that it sees: of each step by row."""

    def __init__(self) -> None:
        self.by_step: list[dict[int, torch.Tensor]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  # as called
        rows = range(len(scores)) if self.rows is None else self.rows.tolist()
        self.by_step.append(dict(zip(rows, scores.clone(), strict=True)))
        return scores


class _LeavingOnTime(GreedyLoop):
    """The loop with rows that end after a given number of tokens."""

    def _ends(self, criteria: Sequence[Any], rows: int, prompt: int) -> Ends:  # noqa: ARG002  # as called
        return _OnTime(rows, last_tokens=(), stop_strings=(), texts=self._texts, limit=max(_LEAVES_AFTER))


class _OnTime(Ends):
    def add(self, row: int, token: int) -> bool:
        super().add(row, token)
        return len(self.tokens[row]) >= _LEAVES_AFTER[row]


def _close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    finite = other[torch.isfinite(other)]
    scale = float(finite.abs().max()) if len(finite) else 0.0
    return torch.allclose(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)

"""Stock scoring and generation that tell the amplifier which positions of their inputs are the prompt's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.models.scored_rows import ScoredRows, unambiguous_parts

_DRAFTS = ("prompt_lookup_num_tokens", "assistant_model")
"""Ways to generate whose passes hold several new tokens, of which some are dropped."""


class PositionedHFLM(HFLM):  # type: ignore[misc]  # the harness is untyped
    """HFLM; where it runs amplified at some positions only, or by a test-time statistic, it says what they are."""

    amplifier: Amplifier | None = None
    _rows: ScoredRows | None = None

    @property
    def _must_tell(self) -> bool:
        return self.amplifier is not None and self.amplifier.asks_for_positions and self.amplifier.is_acting

    def _loglikelihood_tokens(self, requests: list[Any], *arguments: Any, **options: Any) -> list[Any]:
        """As in HFLM; requests that could be taken for each other in its batches come after each other."""
        if not self._must_tell:
            answers: list[Any] = super()._loglikelihood_tokens(requests, *arguments, **options)
            return answers
        answers = [None] * len(requests)
        for part in unambiguous_parts(requests, self.max_length):
            chosen = [requests[number] for number in part]
            with self._scoring_rows(ScoredRows(chosen, self.max_length)):
                found = super()._loglikelihood_tokens(chosen, *arguments, **options)
            for number, answer in zip(part, found, strict=True):
                answers[number] = answer
        return answers

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """As in HFLM; its rows of ones are no requests."""
        with self._scoring_rows(None):
            return int(super()._detect_batch_size(requests, pos))

    def _model_call(self, inps: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """As in HFLM; a probe, whose rows are no requests, is amplified everywhere and all prompt."""
        if not self._must_tell or self.amplifier is None:
            return super()._model_call(inps, *arguments, **options)  # type: ignore[no-any-return]  # the same
        mask, prompt = None, torch.ones_like(inps, dtype=torch.bool)
        if self._rows is not None:
            mask, prompt = self._rows.masks(inps, self.amplifier.intervention.positions)
        with self.amplifier.on(mask, prompt=prompt):
            return super()._model_call(inps, *arguments, **options)  # type: ignore[no-any-return]  # the same

    def _model_generate(self, context: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """As in HFLM.

        Raises:
            InterventionError: It generates in a way in which the positions, or the statistic, would not be right.
        """
        if self.amplifier is None or not self.amplifier.is_acting:
            return super()._model_generate(context, *arguments, **options)  # type: ignore[no-any-return]  # the same
        intervention = self.amplifier.intervention
        if self.backend == "seq2seq" and intervention.positions != "all":
            raise InterventionError(
                f"positions={intervention.positions} in generate_until of an encoder-decoder: only its scoring has "
                "positions; use positions=all"
            )
        if not self._must_tell:
            return super()._model_generate(context, *arguments, **options)  # type: ignore[no-any-return]  # the same
        beams = options.get("num_beams") or getattr(self.model.generation_config, "num_beams", None) or 1
        if intervention.test_time == "running_max" and beams > 1:
            raise InterventionError(
                f"statistic=running_max with num_beams={beams}: its rows change places; use one beam"
            )
        for name in _DRAFTS:
            if options.get(name) is not None:
                raise InterventionError(
                    f"{name} with positions={intervention.positions} or a test-time statistic is not supported"
                )
        mask = options.get("attention_mask")
        with self.amplifier.generating(torch.ones_like(context) if mask is None else mask):
            return super()._model_generate(context, *arguments, **options)  # type: ignore[no-any-return]  # the same

    @contextmanager
    def _scoring_rows(self, rows: ScoredRows | None) -> Iterator[None]:
        before, self._rows = self._rows, rows
        try:
            yield
        finally:
            self._rows = before

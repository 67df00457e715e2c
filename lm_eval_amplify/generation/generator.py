"""Which generations run in our loop: those that give the same there; the others in transformers' own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from lm_eval_amplify.generation.ends import TokenTexts
from lm_eval_amplify.generation.loop import GreedyLoop, RowsLeft, UnsuitedError
from lm_eval_amplify.generation.probe import obstacle
from lm_eval_amplify.generation.prompts import PackedPrompts

_logger = logging.getLogger("lm_eval.amplified_hf")  # below the harness's logger, whose level and format it shares


class Generator:
    """Generates for batches by :class:`GreedyLoop` where it can, else by transformers' loop; says once why not.

    Args:
        tokenizer: Of the model.
        rows_left: See :class:`~lm_eval_amplify.generation.loop.GreedyLoop`.
    """

    def __init__(self, tokenizer: Any, rows_left: RowsLeft | None = None) -> None:
        self._rows_left = rows_left
        self._loop = GreedyLoop(TokenTexts(tokenizer), rows_left)
        self._is_probed = False
        self._is_suited = True
        self._reads_packed = True
        self._said: set[str] = set()

    def generate(
        self,
        generate: Callable[..., torch.Tensor],
        context: torch.Tensor,
        dtype: torch.dtype,
        prompts: PackedPrompts | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Generate for a batch; the first time the model is tried on a few tokens of it.

        Args:
            generate: The harness model's ``_model_generate``.
            context: Prompts, padded on the left, ``[rows, positions]``.
            dtype: Of the model.
            prompts: Reads the prompts, if the model gives the same then.
            **options: What else that method is called with.
        """
        if options.get("do_sample"):
            # Asked before anything else, because what draws counts how often it is called.
            return self._by_transformers("it draws, by random numbers of whole batches", generate, context, options)
        if not self._is_probed:
            self._is_probed = True
            reason = obstacle(generate, context, dtype, self._rows_left, prompts)
            if reason is not None and prompts is not None:
                self._reads_packed = False  # its positions count the padding, say
                reason = obstacle(generate, context, dtype, self._rows_left)
            if reason is not None:
                self._is_suited = False
                self._say(reason)
        if not self._is_suited:
            return generate(context=context, **options)
        self._loop.prompts = prompts if self._reads_packed else None
        try:
            return generate(context=context, custom_generate=self._loop, **options)
        except UnsuitedError as error:
            return self._by_transformers(str(error), generate, context, options)

    def _by_transformers(
        self, reason: str, generate: Callable[..., torch.Tensor], context: torch.Tensor, options: dict[str, Any]
    ) -> torch.Tensor:
        self._say(reason)
        return generate(context=context, **options)

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _logger.info("generation runs in transformers' own loop, not in ours: %s", reason)

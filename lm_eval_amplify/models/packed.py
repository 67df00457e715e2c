"""Scoring by packed rows in place of the harness's batches, where the model can do it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias, get_args

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from tqdm import tqdm  # type: ignore[import-untyped]

from lm_eval_amplify.errors import InterventionError, did_you_mean
from lm_eval_amplify.generation.prompts import PackedPrompts
from lm_eval_amplify.models.encoded import EncodedHFLM, texts_of_pairs
from lm_eval_amplify.models.positioned import PositionedHFLM
from lm_eval_amplify.scoring.batches import Budget
from lm_eval_amplify.scoring.engine import Engine
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.memory import Footprint, budget_of_free_memory, budget_of_stock
from lm_eval_amplify.scoring.probe import probe
from lm_eval_amplify.scoring.requests import Scored

Scorer: TypeAlias = Literal["packed", "stock"]

_logger = logging.getLogger("lm_eval.amplified_hf")  # below the harness's logger, whose level and format it shares


def check_scorer(value: str) -> None:
    """Check the argument ``scorer``.

    Raises:
        InterventionError: It is neither ``packed`` nor ``stock``.
    """
    allowed = get_args(Scorer)
    if value not in allowed:
        raise InterventionError(f"scorer={value}{did_you_mean(str(value), allowed)}: expected {', '.join(allowed)}")


class PackedHFLM(EncodedHFLM, PositionedHFLM):
    """HFLM whose log-likelihoods come from an :class:`~lm_eval_amplify.scoring.engine.Engine` once there is one.

    Before :meth:`use_packed_scoring` is called, and for a model that cannot do it, everything is HFLM's.
    """

    _engine: Engine | None = None
    _free_budget: Budget | None = None
    _is_split: bool
    """Whether processes share the model."""

    @property
    def scorer(self) -> Scorer:
        """Which scorer gives the log-likelihoods; a test-time statistic is of each request's own prompt."""
        return "stock" if self._engine is None or self._test_time is not None else "packed"

    def use_packed_scoring(self, amplifications: Sequence[Callable[[], AbstractContextManager[None]]]) -> None:
        """Score by packed rows from now on, as far as a probe shows that the model can; else say in the log why not.

        Args:
            amplifications: Contexts of interventions, under which the probe looks too.
        """
        self._engine = None
        obstacle = self._obstacle()
        if obstacle is not None:
            _logger.warning("scorer=packed: HFLM scores (%s)", obstacle)
            return
        forward = Forward(self.model, self.device, self.mixed_precision_dtype, self._on)
        text_config = self.config.get_text_config()
        abilities, reasons = probe(
            forward,
            self._model_call,
            [nullcontext, *amplifications],
            vocabulary=min(getattr(text_config, "vocab_size", self.vocab_size), self.vocab_size),
            max_length=self.max_length,
            config=text_config,
        )
        if reasons:
            _logger.warning("scorer=packed, %s: %s", type(self.model).__name__, "; ".join(reasons))
        if abilities is not None:
            self._engine = Engine(forward, abilities, dtype=self.softmax_dtype or torch.float32)

    def _obstacle(self) -> str | None:
        if self.backend != "causal":
            return "an encoder-decoder has no context that options share"
        if self._is_split:
            return "tp_plan: processes that share a model must make the same passes"
        if self._test_time is not None:
            return f"statistic={self._test_time} is of each request's own prompt"
        return None

    @property
    def _test_time(self) -> str | None:
        return None if self.amplifier is None else self.amplifier.intervention.test_time

    def _on(self, roles: torch.Tensor | None) -> AbstractContextManager[None]:
        """Tell the amplifier where it acts, if it asks.

        Args:
            roles: Which positions are of continuations, bool ``[rows, positions]``; None: all are amplified.
        """
        if self.amplifier is None or not self._must_tell:
            return nullcontext()
        if roles is None:
            return self.amplifier.on(None)
        return self.amplifier.on(roles if self.amplifier.intervention.positions == "generated" else ~roles)

    def _packed_prompts(self) -> PackedPrompts | None:
        """What reads prompts that are generated for, where the probe has shown that all of it works."""
        if self._engine is None or self._must_tell or self._test_time is not None:
            return None
        abilities = self._engine.abilities
        if not (abilities.trees and abilities.cache):
            return None
        return PackedPrompts(self._engine.forward, abilities.longest)

    # What HFLM does by batches ----------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """As in HFLM."""
        texts = texts_of_pairs(requests) if self.scorer == "packed" else ()
        with self._encoded_ahead(texts):
            return list(super().loglikelihood(requests, disable_tqdm=disable_tqdm))

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **options: Any) -> list[Any]:
        """As in HFLM: requests are (texts, context tokens, continuation tokens), the answers in their order."""
        if self._engine is None or self.scorer == "stock":
            return list(super()._loglikelihood_tokens(requests, *args, **options))
        answers: list[Any] = [None] * len(requests)
        disable = bool(args[0] if args else options.get("disable_tqdm", False)) or self.rank != 0
        with tqdm(total=len(requests), disable=disable, desc="Running loglikelihood requests") as progress:
            for number, answer in self._score(self._engine, [request[1:3] for request in requests]):
                answers[number] = tuple(answer)
                if requests[number][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[number][0], answers[number])
                progress.update()
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """As in HFLM: whole texts, those longer than the model's inputs in windows, of which the sum is taken."""
        if self._engine is None or self.scorer == "stock":
            return list(super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm))
        windows: list[tuple[list[int], list[int]]] = []
        ends: list[int] = []  # of each text's windows
        with self._encoded_ahead(request.args[0] for request in requests):
            for request in requests:
                cut = utils.get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
                windows.extend(map(utils.make_disjoint_window, cut))
                ends.append(len(windows))
        starts = [0, *ends[:-1]]
        owners = [number for number in range(len(ends)) for _ in range(starts[number], ends[number])]
        missing = Counter(owners)
        values = [0.0] * len(windows)
        answers: list[Any] = [0] * len(requests)  # as the harness has it for a text without a token
        disable = disable_tqdm or self.rank != 0
        with tqdm(total=len(windows), disable=disable, desc="Running rolling loglikelihood requests") as progress:
            for number, answer in self._score(self._engine, windows):
                values[number] = answer.loglikelihood
                owner = owners[number]
                missing[owner] -= 1
                if not missing[owner]:
                    answers[owner] = sum(values[starts[owner] : ends[owner]])
                    self.cache_hook.add_partial("loglikelihood_rolling", requests[owner].args, answers[owner])
                progress.update()
        return answers

    def _score(self, engine: Engine, pairs: Sequence[Sequence[Sequence[int]]]) -> Any:
        """Yield the number and the answer of each pair of context and continuation."""
        max_length = self.max_length  # HFLM looks it up each time
        scored = [Scored.cut(context, continuation, max_length) for context, continuation in pairs]
        cut = sum(
            len(before) + len(after) - 1 > len(one.tokens) for (before, after), one in zip(pairs, scored, strict=True)
        )
        if cut:
            _logger.warning(
                "%s of %s requests are longer than max_length=%s and lose tokens of their contexts on the left",
                cut,
                len(scored),
                self.max_length,
            )
        longest = max((len(one.tokens) for one in scored), default=1)
        return engine.score(scored, self._budget(longest), by_role=self._must_tell)

    def _budget(self, longest: int) -> Budget:
        """What ``batch_size`` means here: a number the memory of so many of HFLM's rows, ``auto`` what is free."""
        footprint = Footprint.of(self.model)
        if self.batch_size != "auto":
            return budget_of_stock(footprint, self.device, int(self.batch_size), longest)
        if self._free_budget is None:
            self._free_budget = budget_of_free_memory(footprint, self.device)
        most = budget_of_stock(footprint, self.device, int(self.max_batch_size), longest)
        return Budget(*map(min, self._free_budget, most))

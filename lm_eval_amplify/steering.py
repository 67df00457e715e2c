"""The Language Steering Shift of a model in memory, without the harness: for many interventions on the same facts.

The numbers are those of the harness's task (:class:`~lm_eval_amplify.tasks_support.lss.LSSTask`) for a tokenizer that
adds no special tokens; the unamplified side is scored once, whatever the number of interventions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.positions import scored_positions
from lm_eval_amplify.tasks_support.lss_metrics import Scored, requests_of, shifts_of
from lm_eval_amplify.tasks_support.nan_means import nan_mean


class Steering:
    """Facts whose unamplified side is known.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        documents: Facts as :func:`~lm_eval_amplify.tasks_support.facts.make_document` makes them.
        batch_size: Texts in a forward pass.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, documents: Iterable[Mapping[str, Any]], *, batch_size: int = 256
    ) -> None:
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size
        self.documents = list(documents)
        self._unamplified = self._answers(None)

    def lss(self, amplifier: Amplifier) -> dict[str, float]:
        """Return the Language Steering Shift by target language: the share of facts with ``shift_t`` above 0.

        NaN for a target without a fact that has a value.

        Raises:
            LanguageError: The amplifier's neuron file lacks a target.
        """
        steered: dict[str, list[float]] = {}
        for shifts in self.shifts(amplifier):
            for target, shift in shifts.items():
                steered.setdefault(target, []).append(math.nan if math.isnan(shift) else float(shift > 0))
        return {target: nan_mean(values) for target, values in steered.items()}

    def shifts(self, amplifier: Amplifier) -> list[dict[str, float]]:
        """Return ``shift_t`` in nats by target language for each document, NaN where there is no value.

        Raises:
            LanguageError: The amplifier's neuron file lacks a target.
        """
        answers = dict(self._unamplified)
        for target in dict.fromkeys(target for document in self.documents for target in document["targets"]):
            with amplifier.amplified(target):
                answers |= self._answers(target, amplifier)
        return [
            shifts_of(document, [answers[_key(document, scored)] for scored in requests_of(document)])
            for document in self.documents
        ]

    def _answers(
        self, side: str | None, amplifier: Amplifier | None = None
    ) -> dict[tuple[str | None, str, str], float]:
        keys = dict.fromkeys(
            _key(document, scored)
            for document in self.documents
            for scored in requests_of(document)
            if scored.target == side
        )
        pairs = [(prompt, continuation) for _, prompt, continuation in keys]
        found = loglikelihoods(self._model, self._tokenizer, pairs, self._batch_size, amplifier)
        return dict(zip(keys, found, strict=True))


def loglikelihoods(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    batch_size: int = 256,
    amplifier: Amplifier | None = None,
) -> list[float]:
    """Return log P(continuation | context) in nats of (context, continuation) pairs, tokenized together.

    Args:
        model: A causal language model, amplified or not.
        tokenizer: Its tokenizer.
        pairs: Texts; a context must not be empty.
        batch_size: Texts in a forward pass.
        amplifier: By which the model is amplified now, to be told what the positions are.
    """
    ids = tokenizer([context + continuation for context, continuation in pairs], add_special_tokens=False)["input_ids"]
    starts = [len(one) for one in tokenizer([context for context, _ in pairs], add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(pairs)), key=lambda number: len(ids[number]))
    found = [0.0] * len(pairs)
    device = next(model.parameters()).device
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        rows = torch.zeros(len(batch), max(len(ids[number]) for number in batch), dtype=torch.long)
        for row, number in enumerate(batch):
            rows[row, : len(ids[number])] = torch.tensor(ids[number])  # padding comes after: no token sees it
        places = [
            (row, position) for row, number in enumerate(batch) for position in range(starts[number], len(ids[number]))
        ]
        at = torch.tensor(places)
        last = torch.tensor([starts[number] - 1 for number in batch], device=device)
        with torch.no_grad(), _told(amplifier, last, rows.shape[1]):
            logits = model(rows.to(device)).logits[at[:, 0], at[:, 1] - 1]
        values = logits.float().log_softmax(-1).cpu().gather(1, rows[at[:, 0], at[:, 1]].unsqueeze(1)).squeeze(1)
        for (row, _), value in zip(places, values.tolist(), strict=True):
            found[batch[row]] += value
    return found


def _told(amplifier: Amplifier | None, last_of_prompt: torch.Tensor, width: int) -> AbstractContextManager[None]:
    if amplifier is None or not amplifier.asks_for_positions:
        return nullcontext()
    mask, prompt = scored_positions(last_of_prompt, width, amplifier.intervention.positions)
    return amplifier.on(mask, prompt=prompt)


def lss(
    model: nn.Module,
    tokenizer: Any,
    amplifier: Amplifier,
    documents: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 256,
) -> dict[str, float]:
    """Return the Language Steering Shift of one amplifier by target language; see :meth:`Steering.lss`.

    For several amplifiers on the same facts a :class:`Steering` scores the unamplified side once.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer.
        amplifier: Of the model.
        documents: Facts, such as :func:`~lm_eval_amplify.tasks_support.babel_facts.babel_facts` makes.
        batch_size: Texts in a forward pass.
    """
    return Steering(model, tokenizer, documents, batch_size=batch_size).lss(amplifier)


def _key(document: Mapping[str, Any], scored: Scored) -> tuple[str | None, str, str]:
    return scored.target, document["prompt"], scored.continuation

"""The harness's model under an amplification, which can be exchanged for another while the model stays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.effect import probe_tokens, without_effect
from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.models.packed import PackedHFLM
from lm_eval_amplify.models.requests import AmplifiedRequests, Targets
from lm_eval_amplify.neurons import NeuronFile
from lm_eval_amplify.provenance import neuron_file_hash, signature
from lm_eval_amplify.task_languages import OWN_LANGUAGE

_logger = logging.getLogger("lm_eval.amplified_hf")  # below the harness's logger, whose level and format it shares


class SwitchedHFLM(AmplifiedRequests, PackedHFLM):
    """What :class:`AmplifiedRequests` asks for, of a model whose intervention, neurons and languages are attributes."""

    intervention: Intervention
    languages_of_requests: Collection[str] | None = None
    """The languages that requests can be amplified for; None: all of the neuron file."""
    _packs = False
    """Whether packed scoring was asked for."""
    _tried: set[tuple[Any, ...]]
    """Interventions whose effect was looked at, but for their factors."""
    _is_probed_amplified = False
    """Whether packed scoring was tried on the amplified model."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._tried = set()
        super().__init__(*arguments, **options)

    def switch(self, intervention: Intervention | None, neurons: NeuronFile | None, language: str) -> None:
        """Run under another intervention from now on, as a model made with it would; answers without one are kept.

        Args:
            intervention: What to do; None: nothing.
            neurons: The neuron file; None: the model runs unamplified.
            language: Whose neurons: one language, several joined with ``+``, or ``task``.

        Raises:
            AmplifyError: The intervention does not fit the neuron file, or that the model; nothing has changed.
        """
        intervention = Intervention() if intervention is None else intervention
        amplifier = None
        if neurons is not None:
            amplifier = Amplifier(self.model, neurons, intervention)
        targets = parse_targets(language, neurons)
        self.intervention, self.neurons, self.amplifier, self.fixed_targets = intervention, neurons, amplifier, targets
        self.forget_amplified()
        self._take_up()

    def use_packed(self) -> None:
        """Score by packed rows from now on, as far as the model can."""
        self._packs = True
        examples = self._examples()
        self._is_probed_amplified = bool(examples)
        self.use_packed_scoring(examples)

    def _take_up(self) -> None:
        """Warn of an amplification that does nothing, and see whether it lets the model be scored by packed rows."""
        if self.amplifier is None:
            return
        self._warn_of_no_effect(self.amplifier)
        is_new = self._packs and not self._is_probed_amplified
        if is_new and self.intervention.test_time is None and self._examples():
            self.use_packed()

    # What AmplifiedRequests asks for -------------------------------------------------------------------------------

    def amplified_as(self, targets: Sequence[str]) -> AbstractContextManager[None]:
        """Return a context in which the model is amplified for these languages."""
        if self.amplifier is None:
            raise InterventionError("give neurons=<file> in the model's arguments to amplify it")
        return self.amplifier.amplified(*targets)

    @property
    def is_amplified(self) -> bool:
        """Whether requests of the ordinary types run amplified at all."""
        return self.neurons is not None and not self.intervention.is_identity

    def has_effect(self, targets: Sequence[str]) -> bool:
        """Whether amplifying these languages changes any activation."""
        return self.amplifier is not None and self.amplifier.number_of_neurons(*targets) > 0

    @property
    def condition(self) -> str:
        """The signature of the intervention in force, without its targets."""
        return signature(self.intervention.signature_parts)

    # Whether it does anything ----------------------------------------------------------------------------------------

    def _warn_of_no_effect(self, amplifier: Amplifier) -> None:
        """Costs a forward pass of a few tokens, and one more for each language that requests can be amplified for."""
        if self.intervention.is_identity:
            identity = ", ".join(
                f"{operation} by factor {factor:g}" for operation, factor in self.intervention.operations
            )
            _logger.warning("%s changes nothing: the model runs unamplified", identity)
            return
        # What another factor does, this one does: of many factors the first is tried.
        tried = (neuron_file_hash(amplifier.neurons), self.fixed_targets, *_but_for_factors(amplifier))
        if tried in self._tried:
            return
        self._tried.add(tried)
        by_reason: dict[str, list[str]] = {}
        for languages, reason in without_effect(
            amplifier, self.model, self._probe, self._every_target(amplifier)
        ).items():
            by_reason.setdefault(reason, []).append("+".join(languages))
        for reason, affected in by_reason.items():
            _logger.warning("%s: %s", ", ".join(affected), reason)

    def _every_target(self, amplifier: Amplifier) -> list[tuple[str, ...]]:
        """What requests can be amplified for."""
        if self.fixed_targets:
            return [self.fixed_targets]
        asked = self.languages_of_requests
        return [(one,) for one in amplifier.neurons.languages if asked is None or one in asked]

    def _examples(self) -> Sequence[Callable[[], AbstractContextManager[None]]]:
        """The context of one amplification that changes something, if there is one."""
        every = self._every_target(self.amplifier) if self.amplifier is not None and self.is_amplified else []
        return [partial(self.amplified_as, targets) for targets in every if self.has_effect(targets)][:1]

    def _probe(self) -> torch.Tensor:
        known = getattr(self.config.get_text_config(), "vocab_size", self.vocab_size)
        tokens = probe_tokens(min(known, self.vocab_size))[:, : self.max_length].to(self.device)
        further = {"attn_mask": torch.ones_like(tokens), "labels": tokens} if self.backend == "seq2seq" else {}
        logits: torch.Tensor = self._model_call(tokens, **further)
        return logits


def _but_for_factors(amplifier: Amplifier) -> tuple[Any, ...]:
    one = amplifier.intervention
    return one.operation, one.statistic, one.others_operation, one.layers, one.positions


def parse_targets(language: object, neurons: NeuronFile | None) -> Targets:
    """Return the languages that the argument ``language`` names; None for ``task``.

    Raises:
        AmplifyError: It is no such thing, or a language is unknown or not in the neuron file.
    """
    if not isinstance(language, str) or not language:
        raise InterventionError(f"language={language!r}: expected a code, several joined with '+', or 'task'")
    if language == OWN_LANGUAGE:
        return None
    names = language.split("+")
    resolve = canonical_language if neurons is None else neurons.resolve_language
    return tuple(dict.fromkeys(resolve(name) for name in names))

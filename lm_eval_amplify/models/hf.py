"""``amplified_hf``: the harness's Hugging Face model, amplified."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.amplifier import Amplifier, Mode, check_mode
from lm_eval_amplify.errors import CacheError, InterventionError
from lm_eval_amplify.generation import Generator
from lm_eval_amplify.intervention import Operation, Positions
from lm_eval_amplify.models.arguments import refuse_misspelt
from lm_eval_amplify.models.finite import NonFiniteRows, OnNonFinite, Watch, check_on_nonfinite
from lm_eval_amplify.models.packed import Scorer, check_scorer
from lm_eval_amplify.models.switched import SwitchedHFLM, parse_targets
from lm_eval_amplify.neurons import NeuronFile, locate_neurons, read_neurons
from lm_eval_amplify.presets import make_intervention
from lm_eval_amplify.processes import leave_group_at_exit
from lm_eval_amplify.provenance import (
    model_hash,
    neuron_file_hash,
    package_version,
    signature,
    tokenizer_hash,
)
from lm_eval_amplify.resources import embedded_model
from lm_eval_amplify.task_languages import OWN_LANGUAGE

_NO_SCORE = ("batch_size", "max_batch_size", "device", "tokenizer")
"""HFLM's arguments that change no score, or are part of the signature by themselves."""

_logger = logging.getLogger("lm_eval.amplified_hf")  # below the harness's logger, whose level and format it shares


class AmplifiedHFLM(SwitchedHFLM):
    """HFLM whose language-specific neurons are amplified; every argument of HFLM keeps working.

    Args:
        pretrained: As in HFLM, or ``babel``; by default the model that the neuron file names.
        neurons: Path of a neuron file, ``hf://org/repo/file[@revision]``, or the name of a bundled one. Without it
            the model is plain HFLM.
        language: Whose neurons to amplify: a FLORES-200 code (or ISO code or English name), several joined with
            ``+``, or ``task``: each request in the language of its own task.
        operation: ``set``, ``add`` or ``scale``; see :class:`~lm_eval_amplify.intervention.Intervention`, also for
            ``statistic``, ``factor``, ``others_operation``, ``others_factor``, ``layers`` and ``positions``.
        preset: A name for operation, statistic and factor; see :mod:`~lm_eval_amplify.presets`.
        mode: ``auto``, ``fold`` or ``hook``; see :class:`~lm_eval_amplify.amplifier.Amplifier`.
        scorer: ``packed``: what requests share is computed once, and logits only where something is scored; as far as
            the model can do it. ``stock``: HFLM's own scoring, bit for bit.
        on_nonfinite: What to do with an answer that comes of logits that are not finite: ``warn`` once per task and
            count them in the results, or stop with an ``error``.
        **hf_arguments: HFLM's.

    Raises:
        AmplifyError: An argument is wrong, or does not fit the others, the neuron file or the model.
    """

    is_switched_later: ClassVar[bool] = False
    """Whether being unamplified at first is no mistake."""

    def __init__(
        self,
        pretrained: Any = None,
        *,
        neurons: str | NeuronFile | None = None,
        language: str = OWN_LANGUAGE,
        operation: Operation | None = None,
        statistic: str | None = None,
        factor: float | None = None,
        preset: str | None = None,
        others_operation: Operation | None = None,
        others_factor: float | None = None,
        layers: str = "all",
        positions: Positions = "all",
        mode: Mode = "auto",
        scorer: Scorer = "packed",
        on_nonfinite: OnNonFinite = "warn",
        **hf_arguments: Any,
    ) -> None:
        refuse_misspelt(hf_arguments, AmplifiedHFLM, HFLM)
        check_on_nonfinite(on_nonfinite)
        check_scorer(scorer)
        self.intervention = make_intervention(
            preset=preset,
            operation=operation,
            statistic=statistic,
            factor=factor,
            others_operation=others_operation,
            others_factor=others_factor,
            layers=layers,
            positions=positions,
        )
        check_mode(mode, self.intervention)
        self.neurons = _read(neurons)
        self.fixed_targets = parse_targets(language, self.neurons)
        if self.neurons is not None:
            self.intervention.check_against(self.neurons)
        elif not self.is_switched_later:
            _logger.warning("no neurons=<file> given: the model runs unamplified")
        self.on_nonfinite = on_nonfinite
        self._contexts: Sequence[str] = ()
        self._longest_batch: int | None = None
        self._generator: Generator | None = None
        self._is_split = hf_arguments.get("tp_plan") is not None  # one model over all processes
        self._scoring = {name: value for name, value in sorted(hf_arguments.items()) if name not in _NO_SCORE}
        super().__init__(pretrained=self._model_name(pretrained), **hf_arguments)
        self._share_out()
        if self.neurons is not None:
            self.amplifier = Amplifier(self.model, self.neurons, self.intervention, mode=mode)
        if scorer == "packed":
            self.use_own_generation()
            self.use_packed()
        self._take_up()

    batch_schedule: float

    # Provenance ------------------------------------------------------------------------------------------------------

    def get_model_info(self) -> dict[str, Any]:
        """Return HFLM's information and, under ``amplify``, the signature of the results with its parts in full."""
        info: dict[str, Any] = super().get_model_info()
        return info | {"amplify": self.provenance}

    @property
    def provenance(self) -> dict[str, str]:
        """The signature of results, and its parts in full."""
        parts = self._signature_parts()
        return {"signature": signature(parts), **parts}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Give the answers of each signature a table of their own in the harness's cache.

        The harness looks answers up by the request's text alone, so those of another factor, language, model, or of the
        plain model, would be taken for this one's.

        Raises:
            CacheError: Requests are amplified in their own languages, where even one run may give a text two answers.
        """
        if cache_hook.dbdict is not None:
            if self.is_amplified and self.fixed_targets is None:
                raise CacheError(
                    "--use_cache knows answers by their text alone, and under language=task a text has one for each "
                    "language: give language=<code>, or leave --use_cache out"
                )
            answers = cache_hook.dbdict
            table = "amplified " + signature(self._signature_parts())
            type(answers)(answers.filename, tablename=table, autocommit=True).close()  # creates the table
            answers.tablename = table
        super().set_cache_hook(cache_hook)

    @cached_property
    def _model_hash(self) -> str:
        as_published = isinstance(self.pretrained, str) and not (self.peft or self.delta)
        return model_hash(self.model, self.pretrained if as_published else None)

    @cached_property
    def _tokenizer_hash(self) -> str:
        return f"sha256:{tokenizer_hash(self.tokenizer)}"

    def _signature_parts(self) -> dict[str, str]:
        parts = {"model": self._model_hash, "tokenizer": self._tokenizer_hash}
        if self.neurons is not None and self.amplifier is not None:
            parts["neurons"] = f"sha256:{neuron_file_hash(self.neurons)}"
            if self.neurons.manifest.model:
                parts["neurons_of"] = self.neurons.manifest.model
            parts["language"] = "+".join(self.fixed_targets or (OWN_LANGUAGE,))
            parts |= self.intervention.signature_parts
            parts["mode"] = self.amplifier.mode
        parts["scorer"] = self.scorer
        if self._scoring:
            parts["hf"] = "+".join(f"{name}={value}" for name, value in self._scoring.items())
        return parts | {"dtype": str(self.model.dtype).removeprefix("torch."), "version": package_version()}

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """As in HFLM; for rows of the greatest length, as generation has them, once: all groups would find the same."""
        if requests:
            return int(super()._detect_batch_size(requests, pos))
        if self._longest_batch is None:
            self._longest_batch = int(super()._detect_batch_size())
        return self._longest_batch

    def _batch_scheduler(self, pos: int, n_reordered_requests: Sequence[Any]) -> int:
        """As in HFLM, for groups smaller than the number of parts of ``batch_size=auto:parts`` too."""
        parts = self.batch_schedule
        self.batch_schedule = min(parts, len(n_reordered_requests))
        try:
            return int(super()._batch_scheduler(pos, n_reordered_requests))
        finally:
            self.batch_schedule = parts

    # Generation whose logits are watched ------------------------------------------------------------------------------

    def tok_batch_encode(self, strings: list[str], *arguments: Any, **options: Any) -> Any:
        """As in HFLM; the contexts are those of the rows that are generated next."""
        self._contexts = strings
        return super().tok_batch_encode(strings, *arguments, **options)

    def use_own_generation(self) -> None:
        """Generate greedily by a loop of our own from now on, whose texts are those of HFLM in batches of one row."""
        self._generator = Generator(self.tokenizer, self._keep_rows)

    def _keep_rows(self, rows: torch.Tensor) -> None:
        if self.amplifier is not None:
            self.amplifier.keep_rows(rows)

    def _model_generate(self, *arguments: Any, **options: Any) -> torch.Tensor:
        rows = NonFiniteRows()
        options["logits_processor"] = [*options.pop("logits_processor", ()), rows]
        watch = self.cache_hook if isinstance(self.cache_hook, Watch) else None
        generate = super()._model_generate
        if self._generator is not None:
            prompts = self._packed_prompts()
            generate = partial(self._generator.generate, generate, dtype=self.model.dtype, prompts=prompts)
        try:
            generated: torch.Tensor = generate(*arguments, **options)
        except RuntimeError as error:  # as torch raises where it should sample from them
            noted = rows.among(self._contexts)
            if watch is None or not noted:
                raise
            raise watch.cannot_sample(min(noted)) from error
        if watch is not None:
            watch.contexts |= rows.among(self._contexts)
        return generated

    # Arguments -------------------------------------------------------------------------------------------------------

    def _model_name(self, pretrained: Any) -> Any:
        recorded = self.neurons.manifest.model if self.neurons is not None else None
        model = recorded if pretrained is None else pretrained
        if model is None:
            raise InterventionError("give pretrained=<model>: no neuron file names the model")
        if not isinstance(model, str):
            return model
        if recorded is not None and embedded_model(model) != embedded_model(recorded):
            _logger.warning("the neurons were found in %s and amplify %s; both are recorded", recorded, model)
        return embedded_model(model)

    def _share_out(self) -> None:
        """Take part in a run of several processes without several GPUs, and on several machines, too.

        HFLM does everything in each process of the former, and takes its rank on its own machine in the latter.
        """
        leave_group_at_exit()  # whoever made it: accelerate, or transformers for tp_plan
        accelerator = getattr(self, "accelerator", None)
        if accelerator is not None:
            self._rank, self._world_size = accelerator.process_index, accelerator.num_processes
        elif int(os.environ.get("WORLD_SIZE", "1")) > 1 and isinstance(self.pretrained, str) and not self._is_split:
            _logger.warning(
                "one of %s processes, but each does everything: without GPUs set ACCELERATE_USE_CPU=true to share it "
                "out",
                os.environ["WORLD_SIZE"],
            )


def _read(neurons: str | NeuronFile | None) -> NeuronFile | None:
    if neurons is None or isinstance(neurons, NeuronFile):
        return neurons
    return read_neurons(locate_neurons(str(neurons)))

"""Executes an intervention on a model: by hooks on activations, or folded into weights; undone exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from lm_eval_amplify.architecture import (
    FeedForward,
    check_token_by_token,
    dimension_of_neurons,
    find_feed_forwards,
    fold_obstacle,
)
from lm_eval_amplify.errors import ArchitectureError, InterventionError, NeuronFileError, did_you_mean
from lm_eval_amplify.hooking import DeviceEdit, exact_type, hook, to_tensors
from lm_eval_amplify.intervention import Intervention, plan
from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.positions import Generation, Passes, told

Mode: TypeAlias = Literal["auto", "fold", "hook"]
MODES: tuple[Mode, ...] = get_args(Mode)
_NOT_TOLD = Passes()


class Amplifier:
    """Amplifies the neurons of a language in a model, for the length of a ``with`` block.

    >>> amplifier = Amplifier(model, neurons, Intervention("set", 1.0, "max"))  # doctest: +SKIP
    >>> with amplifier.amplified("ind_Latn"):  # doctest: +SKIP
    ...     model.generate(**inputs)

    Outside such a block the model is as it was: no hook is registered, and every weight has its old bits.

    Where the intervention acts at some positions only, or takes a test-time statistic, forward passes must be told
    what their positions are: inside :meth:`on`, or :meth:`generating`. Of an encoder-decoder, the encoder's positions
    are the prompt, the decoder's are generated, and nothing needs to be told.

    Args:
        model: A Hugging Face model with a language model in it, on whatever devices.
        neurons: Its neuron file.
        intervention: What to do with the neurons.
        mode: ``hook`` changes the activation itself; ``fold`` scales the columns of the down projection that
            multiply it (operation ``scale`` only, no run-time cost); ``auto`` folds where that is exact.

    Raises:
        NeuronFileError: The neuron file is of a model of another shape.
        ArchitectureError: The model is not supported, or cannot be folded and ``mode`` is ``fold``.
        InterventionError: The neuron file lacks what the intervention needs, or ``mode`` contradicts it.
    """

    asks_for_positions: bool
    """Whether forward passes must be told what their positions are."""

    def __init__(
        self, model: nn.Module, neurons: NeuronFile, intervention: Intervention, *, mode: Mode = "auto"
    ) -> None:
        check_mode(mode, intervention)
        intervention.check_against(neurons)
        self.neurons = neurons
        self.intervention = intervention
        self._blocks = find_feed_forwards(model)
        check_shape(neurons, self._blocks)
        self.mode: Literal["fold", "hook"] = self._decide(mode)
        self._model = model
        self._passes: Passes | None = None
        self._depth = 0
        in_two_parts = any(block.in_encoder for block in self._blocks)
        self.asks_for_positions = intervention.asks_for_positions and not in_two_parts
        if self.asks_for_positions:
            check_token_by_token(model, self._blocks, "it cannot be amplified at chosen positions")
        elif intervention.test_time is not None:
            raise ArchitectureError(
                f"{type(model).__name__} is an encoder-decoder: statistic={intervention.test_time} is of decoders only"
            )
        self._plans: dict[tuple[str, ...], list[tuple[FeedForward, list[DeviceEdit]]]] = {}

    @contextmanager
    def amplified(self, *languages: str) -> Iterator[None]:
        """Amplify the neurons of one or several languages of the file inside the ``with`` block.

        Raises:
            LanguageError: The file has no such language.
        """
        layers = self._plan(tuple(self.neurons.resolve_language(language) for language in languages))
        apply = _fold if self.mode == "fold" else partial(hook, passes=self._running)
        with ExitStack() as undo:
            undo.callback(self._count, -1)
            self._count(1)
            for block, edits in layers:
                # Registered before the change, so that an interrupt in the middle of it is undone too.
                apply(block, edits, undo)
            yield

    @property
    def is_acting(self) -> bool:
        """Whether the model is amplified now."""
        return self._depth > 0

    @contextmanager
    def on(self, mask: torch.Tensor | None, *, prompt: torch.Tensor | None = None) -> Iterator[None]:
        """Say what the positions of every forward pass inside the ``with`` block are; each is a pass by itself.

        Args:
            mask: Where the intervention acts, bool ``[batch, positions]`` of the input; None: everywhere.
            prompt: Which positions are real tokens of the prompt, in the same form; test-time statistics need it.

        Raises:
            InterventionError: It is not such a tensor, or weights are folded, which act everywhere.
        """
        if mask is not None and self.mode == "fold":
            raise InterventionError("weights that are folded act at every position: use mode=hook")
        passes = Passes(told(mask, prompt))
        with self._told(passes):
            yield

    @contextmanager
    def generating(self, prompt: torch.Tensor) -> Iterator[None]:
        """Say what the prompts of one ``generate`` inside the ``with`` block are, with or without a cache.

        Args:
            prompt: Which positions are real tokens, ``[batch, positions]``: the attention mask of the prompts, which
                are padded on the left.
        """
        passes = Generation(prompt, self.intervention.positions)

        def begin(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            found = (named.get("input_ids"), named.get("inputs_embeds"), *arguments)
            given = next(value for value in found if isinstance(value, torch.Tensor))
            passes.begin(given.shape[0], given.shape[1])

        # What an adapter or another wrapper generates with.
        inner = next((module for module in self._model.modules() if isinstance(module, PreTrainedModel)), self._model)
        with ExitStack() as undo, self._told(passes):
            undo.callback(inner.register_forward_pre_hook(begin, with_kwargs=True).remove)
            yield

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Say which rows, int64 ``[kept]``, of a running generation go on; within :meth:`generating`."""
        if isinstance(self._passes, Generation):
            self._passes.keep(rows)

    @contextmanager
    def _told(self, passes: Passes) -> Iterator[None]:
        before, self._passes = self._passes, passes
        try:
            yield
        finally:
            self._passes = before

    def _running(self) -> Passes:
        if self._passes is not None:
            return self._passes
        if self.asks_for_positions:
            one = self.intervention
            asked = f"positions={one.positions}" if one.test_time is None else f"statistic={one.test_time}"
            raise InterventionError(
                f"{asked}: say which positions are the prompt's, within Amplifier.generating(attention_mask) for one "
                "generate, or Amplifier.on(mask) for other forward passes"
            )
        return _NOT_TOLD

    def _count(self, change: int) -> None:
        self._depth += change

    def number_of_neurons(self, *languages: str) -> int:
        """Return how many neurons an intervention for these languages changes."""
        targets = tuple(self.neurons.resolve_language(language) for language in languages)
        return sum(len(edit.index) for _, edits in self._plan(targets) for edit in edits)

    def _plan(self, targets: tuple[str, ...]) -> list[tuple[FeedForward, list[DeviceEdit]]]:
        if targets not in self._plans:
            by_layer: dict[int, list[DeviceEdit]] = {}
            for edit in plan(self.intervention, self.neurons, targets):
                by_layer.setdefault(edit.layer, []).append(to_tensors(edit))
            self._plans[targets] = [
                (self._blocks[layer], edits) for layer, edits in by_layer.items() if self._acts_in(self._blocks[layer])
            ]
        return self._plans[targets]

    def _acts_in(self, block: FeedForward) -> bool:
        """Of an encoder-decoder, whether the positions are the encoder's or the decoder's."""
        if self.asks_for_positions or self.intervention.positions == "all":
            return True
        return block.in_encoder == (self.intervention.positions == "prompt")

    def _decide(self, mode: Mode) -> Literal["fold", "hook"]:
        everywhere = self.intervention.positions == "all"
        if mode == "hook" or not everywhere or any(one != "scale" for one, _ in self.intervention.operations):
            return "hook"
        for block in self._blocks:
            obstacle = fold_obstacle(block)
            if obstacle is not None:
                if mode == "fold":
                    raise ArchitectureError(f"mode=fold: {block.name} cannot be folded: {obstacle}; use mode=hook")
                return "hook"
        return "fold"


def check_mode(mode: str, intervention: Intervention) -> None:
    """Check a mode by itself and against the operations.

    Raises:
        InterventionError: It is unknown, or ``fold`` with another operation than ``scale``, or at some positions only.
    """
    if mode not in MODES:
        raise InterventionError(f"mode={mode}{did_you_mean(str(mode), MODES)}: expected {', '.join(MODES)}")
    if mode == "fold" and intervention.positions != "all":
        raise InterventionError(
            f"mode=fold with positions={intervention.positions}: weights act at every position; use mode=hook"
        )
    for operation, _ in intervention.operations:
        if mode == "fold" and operation != "scale":
            raise InterventionError(
                f"mode=fold with operation {operation!r}: only 'scale' can be folded into weights; use mode=hook"
            )


def check_shape(neurons: NeuronFile, blocks: Sequence[FeedForward]) -> None:
    """Check that a neuron file's layers and indices are those of a model.

    Raises:
        NeuronFileError: They are not; names the field, what the file says and what the model has.
    """
    manifest = neurons.manifest
    of = f"neurons of {manifest.model}" if manifest.model else "neurons"
    if manifest.num_layers != len(blocks):
        raise NeuronFileError(
            f"the neuron file is not of this model: {of} in num_layers={manifest.num_layers} layers, "
            f"the model has {len(blocks)}"
        )
    widths = sorted({block.d_ff for block in blocks})
    if manifest.intermediate_size is not None and widths != [manifest.intermediate_size]:
        raise NeuronFileError(
            f"the neuron file is not of this model: {of} with intermediate_size={manifest.intermediate_size}, "
            f"the model has {' and '.join(map(str, widths))}"
        )
    for language, own in neurons.neurons.items():
        for layer, index in zip(own.layer.tolist(), own.index.tolist(), strict=True):
            if index >= blocks[layer].d_ff:
                raise NeuronFileError(
                    f"the neuron file is not of this model: {language} has neuron {index} in layer {layer}, "
                    f"the model has {blocks[layer].d_ff} there"
                )


def _fold(block: FeedForward, edits: Sequence[DeviceEdit], undo: ExitStack) -> None:
    """Scale the down projection's columns in place; ``undo`` gets the copying back of the old ones."""
    weight: torch.Tensor = block.down.weight  # type: ignore[assignment]  # fold_obstacle saw to it
    dimension = dimension_of_neurons(block.down)
    for edit in edits:
        index = edit.index.to(weight.device)
        with torch.no_grad():
            # Two to three times as fast as weight[:, index] and its assignment.
            before = weight.index_select(dimension, index)
            undo.callback(_restore, weight, dimension, index, before)
            factors = edit.value.to(weight.device, exact_type(weight.dtype))
            shaped = factors.unsqueeze(1) if dimension == 0 else factors
            weight.index_copy_(dimension, index, (before.to(factors.dtype) * shaped).to(weight.dtype))


def _restore(weight: torch.Tensor, dimension: int, index: torch.Tensor, before: torch.Tensor) -> None:
    with torch.no_grad():
        weight.index_copy_(dimension, index, before)

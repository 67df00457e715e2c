"""A model without its head, run over batches while its activations are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from lm_eval_amplify.architecture import Change, find_feed_forwards
from lm_eval_amplify.errors import ArchitectureError, ModelError
from lm_eval_amplify.identify.tokens import Batch

Look: TypeAlias = Callable[[torch.Tensor, torch.Tensor], None]
"""Gets a layer's activations ``[batch * pos, d_ff]``, which it must not change, and which rows count, bool
``[batch * pos]``, on the same device."""


class Network:
    """The decoder of a model, its LM head left out, with the activations of its feed-forward networks.

    Args:
        model: A decoder-only Hugging Face model, on whatever devices; put into evaluation mode while it runs.

    Raises:
        ArchitectureError: The model is not supported, or an encoder-decoder, or its layers differ in d_ff.
    """

    def __init__(self, model: nn.Module) -> None:
        self.blocks = find_feed_forwards(model)
        widths = sorted({block.d_ff for block in self.blocks})
        if len(widths) > 1:
            raise ArchitectureError(
                f"{type(model).__name__} has layers of d_ff {' and '.join(map(str, widths))}: expected one"
            )
        self.d_ff = widths[0]
        self.architecture = type(model).__name__
        self.dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        self._model = model
        self._decoder: nn.Module = getattr(model, "base_model", model)
        self._device = _input_device(model)
        self._is_counted = torch.empty(0, dtype=torch.bool)
        self._is_tried_out = False
        if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise ArchitectureError(
                f"{self.architecture} is an encoder-decoder: neurons are identified in decoders only"
            )

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.blocks)

    def fitting_length(self, length: int) -> int:
        """Return a length of rows, or the number of the model's positions if that is less."""
        config: Any = getattr(self._model, "config", None)
        text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        most = getattr(text_config, "max_position_embeddings", None)
        return min(length, most) if isinstance(most, int) else length

    @contextmanager
    def looking(self, looks: Mapping[int, Look]) -> Iterator[None]:
        """Show the activations of some layers, by number, to a function each, inside the ``with`` block.

        Raises:
            ArchitectureError: At the first use, if the model's activations cannot be counted token by token, because
                a network does not run once over each, or its activations depend on later tokens.
        """
        if not self._is_tried_out:
            self._try_out()
        with self._hooked(looks):
            yield

    @contextmanager
    def _hooked(self, looks: Mapping[int, Look]) -> Iterator[None]:
        with ExitStack() as undo:
            for module in self._model.modules():
                if module.training:
                    undo.callback(setattr, module, "training", True)
            self._model.eval()
            for layer, look in looks.items():
                block = self.blocks[layer]
                block.hook(self._show(look), undo)
            yield

    def run(self, batch: Batch) -> None:
        """Run the decoder over a batch; one synchronisation with the device, to see if there is a NaN.

        Raises:
            ModelError: An activation is NaN (names the first layer with one), or memory does not suffice.
        """
        if self._forward(batch):
            layer = self._first_nan(batch)
            where = "behind the last layer's activations" if layer is None else f"in the activations of layer {layer}"
            raise ModelError(
                f"{self.architecture} gives NaN {where}, computing in {self.dtype}: try --dtype float32, "
                "or check the weights"
            )

    @torch.inference_mode()
    def _forward(self, batch: Batch) -> bool:
        """Whether a counted position of the decoder's output is NaN, as it is if any activation there is."""
        ids = torch.from_numpy(batch.ids).to(self._device)
        self._is_counted = torch.from_numpy(batch.is_counted).flatten().to(self._device)
        try:
            output = self._decoder(input_ids=ids, use_cache=False)[0]
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.architecture}: a batch of {ids.shape[0]} x {ids.shape[1]} tokens does not fit in the "
                "device's memory; lower --batch-size or --max-length"
            ) from error
        is_nan = output.sum(-1, dtype=torch.float32).isnan().flatten()
        return bool((is_nan & self._is_counted.to(output.device)).any())

    def _first_nan(self, batch: Batch) -> int | None:
        found: list[int] = []

        def look_at(layer: int) -> Look:
            def look(activation: torch.Tensor, is_counted: torch.Tensor) -> None:
                if (activation.isnan().any(-1) & is_counted).any():
                    found.append(layer)

            return look

        with self._hooked({block.layer: look_at(block.layer) for block in self.blocks}):
            self._forward(batch)
        return min(found, default=None)

    def _try_out(self) -> None:
        """Run two texts that differ in their last token once, and refuse a model whose layers show more than that."""
        middle = _vocabulary(self._model) // 2  # where no special token is
        ids = middle + np.array([[0, 1, 2], [0, 1, 3]])
        seen: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(self.num_layers)}

        def keep(layer: int) -> Look:
            return lambda activation, _is_counted: seen[layer].append(activation)

        with self._hooked({layer: keep(layer) for layer in seen}):
            self._forward(Batch(ids, np.ones_like(ids, dtype=bool), np.arange(len(ids))))
        for layer, shown in seen.items():
            if [len(activation) for activation in shown] != [ids.size]:
                rows = ", ".join(str(len(activation)) for activation in shown) or "none"
                raise ArchitectureError(
                    f"{self.architecture} does not run the feed-forward network of layer {layer} once over every token "
                    f"(rows of its runs: {rows}; tokens: {ids.size}): its neurons cannot be identified"
                )
            one, other = shown[0].view(*ids.shape, -1)[:, :-1].float()
            # Rounding may differ between rows of a batch; what a later token does is far larger.
            tolerance = 8 * torch.finfo(shown[0].dtype).eps * one.abs().max()
            if ((one - other).abs() > tolerance).any():
                raise ArchitectureError(
                    f"{self.architecture} lets a token's activations depend on later ones, or has them in another "
                    "order than [batch, pos]: its neurons cannot be identified"
                )
        self._is_tried_out = True

    def _show(self, look: Look) -> Change:
        def show(activation: torch.Tensor, _may_write: bool) -> None:
            look(activation.flatten(0, -2), self._is_counted.to(activation.device))

        return show


def _input_device(model: nn.Module) -> torch.device:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    weight = getattr(embeddings, "weight", None)
    device = weight.device if isinstance(weight, torch.Tensor) else next(model.parameters()).device
    # Where weights are offloaded, accelerate brings inputs to the module's device.
    return torch.device("cpu") if device.type == "meta" else device


def _vocabulary(model: nn.Module) -> int:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    number = getattr(embeddings, "num_embeddings", None) or getattr(model.config, "vocab_size", None)
    return number if isinstance(number, int) else 8

"""A model without its head, run over batches while its activations are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lm_eval_amplify.architecture import (
    Change,
    check_token_by_token,
    evaluating,
    find_feed_forwards,
    input_device,
)
from lm_eval_amplify.errors import ArchitectureError, ModelError

Look: TypeAlias = Callable[[torch.Tensor, torch.Tensor], None]
"""Gets a layer's activations ``[batch * pos, d_ff]``, which it must not change, and which rows count, bool
``[batch, pos]``, on the same device."""


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
        self._device = input_device(model)
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
            check_token_by_token(self._model, self.blocks, "its neurons cannot be identified")
            self._is_tried_out = True
        with self._hooked(looks):
            yield

    @contextmanager
    def _hooked(self, looks: Mapping[int, Look]) -> Iterator[None]:
        with evaluating(self._model), ExitStack() as undo:
            for layer, look in looks.items():
                block = self.blocks[layer]
                block.hook(self._show(look), undo)
            yield

    def run(self, ids: NDArray[np.int64], is_counted: NDArray[np.bool_]) -> None:
        """Run the decoder over a batch; one synchronisation with the device, to see if there is a NaN.

        Args:
            ids: Tokens, ``[batch, pos]``.
            is_counted: Which positions count, ``[batch, pos]``.

        Raises:
            ModelError: An activation is NaN (names the first layer with one), or memory does not suffice.
        """
        if self._forward(ids, is_counted):
            layer = self._first_nan(ids, is_counted)
            where = "behind the last layer's activations" if layer is None else f"in the activations of layer {layer}"
            raise ModelError(
                f"{self.architecture} gives NaN {where}, computing in {self.dtype}: try --dtype float32, "
                "or check the weights"
            )

    @torch.inference_mode()
    def _forward(self, token_ids: NDArray[np.int64], is_counted: NDArray[np.bool_]) -> bool:
        """Whether a counted position of the decoder's output is NaN, as it is if any activation there is."""
        ids = torch.from_numpy(token_ids).to(self._device)
        self._is_counted = torch.from_numpy(is_counted).to(self._device)
        try:
            output = self._decoder(input_ids=ids, use_cache=False)[0]
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.architecture}: a batch of {ids.shape[0]} x {ids.shape[1]} tokens does not fit in the "
                "device's memory; lower --batch-size or --max-length"
            ) from error
        is_nan = output.sum(-1, dtype=torch.float32).isnan()
        return bool((is_nan & self._is_counted.to(output.device)).any())

    def _first_nan(self, ids: NDArray[np.int64], is_counted: NDArray[np.bool_]) -> int | None:
        found: list[int] = []

        def look_at(layer: int) -> Look:
            def look(activation: torch.Tensor, counts: torch.Tensor) -> None:
                if (activation.isnan().any(-1) & counts.flatten()).any():
                    found.append(layer)

            return look

        with self._hooked({block.layer: look_at(block.layer) for block in self.blocks}):
            self._forward(ids, is_counted)
        return min(found, default=None)

    def _show(self, look: Look) -> Change:
        def show(activation: torch.Tensor, _may_write: bool) -> None:
            look(activation.flatten(0, -2), self._is_counted.to(activation.device))

        return show

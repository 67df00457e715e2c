"""Forward passes of packed rows, with logits only where they are needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import nn

from lm_eval_amplify.scoring.batches import Batch
from lm_eval_amplify.scoring.prefix_cache import PrefixCache

On: TypeAlias = Callable[[torch.Tensor | None], AbstractContextManager[None]]
"""Tells an intervention which positions of the passes inside the context are of continuations: bool
``[rows, length]``; None: it acts everywhere."""


class Forward:
    """Runs a model on batches.

    Args:
        model: A decoder-only Hugging Face model with an LM head.
        device: Where its inputs go.
        autocast: The type of automatic mixed precision, or None.
        on: Tells an intervention which positions are which.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, autocast: torch.dtype | None = None, on: On | None = None
    ) -> None:
        self.device = device
        self._model = model
        self._autocast = autocast
        self._on: On = on if on is not None else lambda _roles: nullcontext()
        self._head = getattr(model, "get_output_embeddings", lambda: None)()
        self._takes = set(inspect.signature(model.forward).parameters)
        self._cache_name = "cache" if "cache" in self._takes else "past_key_values"  # as before transformers 5.24
        self.only_selected = False
        """Whether the last pass computed logits at the selected positions alone."""

    @torch.no_grad()
    def logits(self, batch: Batch, cache: PrefixCache | None = None) -> torch.Tensor:
        """Return the logits at a batch's selected positions, ``[selected, vocabulary]``.

        Args:
            batch: The batch.
            cache: Of its prefix; one that is not frozen gets the batch's keys and values too.
        """
        ids = batch.ids.to(self.device)
        selected = batch.selected.to(self.device)
        options: dict[str, Any] = {}
        if batch.positions is not None:
            options["position_ids"] = batch.positions.to(self.device)
        if batch.seen is not None:
            options["attention_mask"] = self._mask(batch.seen.to(self.device), batch.prefix)
        if cache is not None:
            options |= {self._cache_name: cache, "use_cache": True}
        elif "use_cache" in self._takes or "kwargs" in self._takes:
            options["use_cache"] = False
        roles = None if batch.roles is None else batch.roles.to(self.device)
        kind = self.device.type
        with (
            torch.autocast(kind, self._autocast, enabled=self._autocast is not None),
            self._on(roles),
            self._selecting(selected) as was_selected,
        ):
            logits: torch.Tensor = self._model(ids, **options).logits
        self.only_selected = bool(was_selected)
        logits = logits.flatten(0, -2)
        return logits if was_selected else logits[selected.to(logits.device)]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's activations."""
        if self._autocast is not None:
            return self._autocast
        dtype = next(self._model.parameters()).dtype
        return dtype if dtype.is_floating_point else torch.float32  # quantised weights

    def _mask(self, seen: torch.Tensor, prefix: int) -> torch.Tensor:
        """An additive mask ``[rows, 1, length, prefix + length]``, which attention of every implementation takes."""
        mask = torch.zeros((*seen.shape[:2], prefix + seen.shape[2]), dtype=self.dtype, device=self.device)
        mask[:, :, prefix:].masked_fill_(~seen, torch.finfo(self.dtype).min)
        return mask.unsqueeze(1)

    @contextmanager
    def _selecting(self, selected: torch.Tensor) -> Iterator[list[bool]]:
        """Hand only the selected positions to the LM head; what the model does to its logits stays as it is.

        Yields:
            A list that is not empty once the head has been called so.
        """
        done: list[bool] = []

        def select(_head: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = arguments[0]
            done.append(True)
            chosen = hidden.flatten(0, -2).index_select(0, selected.to(hidden.device))
            return (chosen if hidden.dim() == 2 else chosen.unsqueeze(0), *arguments[1:])  # [n, width]

        handle = self._head.register_forward_pre_hook(select) if isinstance(self._head, nn.Module) else None
        try:
            yield done
        finally:
            if handle is not None:
                handle.remove()

"""How much of a model's work fits in memory at once: the memory of the harness's batches, or what is free."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lm_eval_amplify.scoring.batches import Budget
from lm_eval_amplify.scoring.devices import preferences


@dataclass(frozen=True)
class Footprint:
    """Bytes that a forward pass takes beside the weights.

    Attributes:
        token: For each token: its hidden states and activations in one layer.
        logits: For each position with logits: those, and their log-softmax as the harness computes it.
    """

    token: int
    logits: int

    @classmethod
    def of(cls, model: nn.Module) -> Footprint:
        """Return a model's, from its configuration; where that does not say, from usual proportions."""
        config: Any = getattr(model, "config", None)
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        hidden = _number(config, "hidden_size", 1024)
        inner = _number(config, "intermediate_size", 4 * hidden)
        size = next(model.parameters()).element_size()
        # Residual, norm, three projections, attention's output and a copy or two; gate, up, product, and a copy.
        return cls(size * (12 * hidden + 4 * inner), 2 * size * _number(config, "vocab_size", 32000))


def budget_of_stock(footprint: Footprint, device: torch.device, batch_size: int, longest: int) -> Budget:
    """Return the budget that takes no more memory than batches of the harness.

    It computes logits at each position of ``batch_size`` rows, and their log-softmax beside them. Half of that memory
    holds as many logits here; half of the rest is left for tokens whose logits nobody asks for.

    Args:
        footprint: Of the model.
        device: Where it runs.
        batch_size: Rows of the harness's batches.
        longest: The longest input, in tokens.
    """
    stock = batch_size * longest
    tokens = stock + int(stock * footprint.logits / 4 / footprint.token)
    return Budget(max(stock, min(tokens, preferences(device).batch)), stock)


def budget_of_free_memory(footprint: Footprint, device: torch.device) -> Budget:
    """Return the budget that takes at most half of what is free now: what ``batch_size=auto`` means."""
    quarter = free_memory(device) // 4
    preferred = preferences(device).batch
    return Budget(
        max(1, min(quarter // footprint.token, preferred)), max(1, min(quarter // footprint.logits, preferred))
    )


def free_memory(device: torch.device) -> int:
    """Return a device's free memory in bytes; 8 GiB where it does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 << 30


def _number(config: object, name: str, otherwise: int) -> int:
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value > 0 else otherwise

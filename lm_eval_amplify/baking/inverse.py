"""The input for which an activation function has a given value."""

from __future__ import annotations

from collections.abc import Callable

import torch


def inverse(activation: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Return the inputs from 0 up at which an activation function has given values; NaN where it has them nowhere.

    By bisection, down to neighbouring numbers: nothing is known of the function but that it rises from 0 on, as SiLU,
    GELU and ReLU do.

    Args:
        activation: The function, elementwise.
        values: From 0 up, float64 ``[values]``.

    Returns:
        float64 ``[values]``.
    """
    low, high = torch.zeros_like(values), torch.ones_like(values)
    for _ in range(1023):  # to the largest number
        short = activation(high) < values
        if not short.any():
            break
        high = torch.where(short, 2 * high, high)
    is_reached = (activation(low) <= values) & (activation(high) >= values)
    while True:
        middle = low + (high - low) / 2
        inside = (low < middle) & (middle < high)
        if not inside.any():
            break
        above = activation(middle) >= values
        high = torch.where(inside & above, middle, high)
        low = torch.where(inside & ~above, middle, low)
    return torch.where(is_reached, high, torch.nan)

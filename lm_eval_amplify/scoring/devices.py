"""What forward passes a kind of device likes, and copies to and from it that do not wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Preferences(NamedTuple):
    """Sizes, in tokens, beyond which nothing gets faster, or below which something does not pay.

    Attributes:
        batch: Of a forward pass.
        row: Of a row, beyond what all its inputs share: attention grows with the square of it, the rest does not.
        worth: A prefix gets a forward pass of its own if that saves more than this: passes of few tokens cost about as
            much as passes of so many.
        logits: Of which the log-sum-exp is taken in one go: it copies them.
    """

    batch: int
    row: int
    worth: int
    logits: int


CPU = Preferences(batch=256, row=192, worth=32, logits=1 << 18)
ACCELERATOR = Preferences(batch=16384, row=256, worth=2048, logits=1 << 25)


def preferences(device: torch.device) -> Preferences:
    """Return those of a device."""
    return CPU if device.type == "cpu" else ACCELERATOR


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device, without waiting for what runs there, where the device allows it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fetch(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Start to copy a tensor to the CPU behind what its device has been told to do so far.

    Returns:
        A function that waits for the copy, and not for what the device is told later, and returns it.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    done = torch.cuda.current_stream(tensor.device).record_event()

    def wait() -> torch.Tensor:
        done.synchronize()
        return copy

    return wait

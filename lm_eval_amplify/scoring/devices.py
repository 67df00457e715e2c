"""What forward passes a kind of device likes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Preferences(NamedTuple):
    """Sizes, in tokens, beyond which nothing gets faster, or below which something does not pay.

    Attributes:
        batch: Of a forward pass.
        row: Of a row, beyond what all its inputs share: attention grows with the square of it, the rest does not.
        worth: A prefix gets a forward pass of its own if that saves more than this: passes of few tokens cost about as
            much as passes of so many.
    """

    batch: int
    row: int
    worth: int


CPU = Preferences(batch=256, row=192, worth=32)
ACCELERATOR = Preferences(batch=16384, row=1024, worth=2048)


def preferences(device: torch.device) -> Preferences:
    """Return those of a device."""
    return CPU if device.type == "cpu" else ACCELERATOR

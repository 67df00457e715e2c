"""The feed-forward network of one layer, as the amplifier and the identification use it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import nn

from lm_eval_amplify.architecture.sites import Change, Site
from lm_eval_amplify.errors import ArchitectureError


class FeedForward(NamedTuple):
    """The FFN of one layer."""

    layer: int
    """From 0, in the order in which the language model runs its FFNs: an encoder's come before its decoder's, and
    layers of a hybrid that have none do not count."""
    name: str
    """Path of its module in the model."""
    site: Site
    """Where its activation, the site of an intervention, is seen and changed."""
    down: nn.Module
    """The down projection, whose input is the activation, times the up projection in a gated FFN."""
    d_ff: int
    """Number of neurons."""
    unfoldable: str | None = None
    """Why the model's structure forbids to scale columns of ``down`` instead of the activation, or None."""
    in_encoder: bool = False
    """Whether it is of the encoder of an encoder-decoder."""
    is_plain: bool = False
    """Whether the activation itself goes into ``down``, not multiplied by an up projection."""

    def hook(self, change: Change, undo: ExitStack) -> None:
        """Call ``change`` with the activation ``[..., d_ff]`` at every run, until ``undo`` is closed.

        Args:
            change: Gets the activation, and whether it may be written in place; what it returns takes the activation's
                place, None leaves it.
            undo: Gets the removal.

        Raises:
            ArchitectureError: At a run, if the activation has another width than d_ff.
        """

        def checked(activation: torch.Tensor, may_write: bool) -> torch.Tensor | None:
            if activation.shape[-1] != self.d_ff:
                raise ArchitectureError(
                    f"{self.name}: activation of width {activation.shape[-1]}, expected d_ff={self.d_ff}"
                )
            return change(activation, may_write)

        self.site.hook(checked, undo)

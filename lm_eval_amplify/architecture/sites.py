"""Where in a feed-forward network its activation can be seen and changed, and how.

A site calls a function of the activation ``[..., d_ff]`` and of whether that tensor may be written in place, whenever
the model runs; what the function returns takes the activation's place, None leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

Change: TypeAlias = Callable[[torch.Tensor, bool], torch.Tensor | None]


class Site(Protocol):
    """A place where activations can be seen and changed."""

    def hook(self, change: Change, undo: ExitStack) -> None:
        """Call ``change`` at every run of the network, until ``undo`` is closed."""


@dataclass(frozen=True)
class OutputOfActivation:
    """The activation is a module of its own, of this network alone: its output."""

    activation: nn.Module

    def hook(self, change: Change, undo: ExitStack) -> None:
        """See :class:`Site`."""

        def after(_module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            # In place is right only on a tensor that is fresh and that no gradient needs.
            fresh = not output.requires_grad and all(output is not given for given in inputs)
            return change(output, fresh)

        undo.callback(self.activation.register_forward_hook(after).remove)


@dataclass(frozen=True)
class InputOfDown:
    """A plain network, ``down(act(up(x)))``, whose activation is no module of its own: the input of ``down``."""

    down: nn.Module

    def hook(self, change: Change, undo: ExitStack) -> None:
        """See :class:`Site`."""

        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            changed = change(inputs[0], False)
            return None if changed is None else (changed, *inputs[1:])

        undo.callback(self.down.register_forward_pre_hook(before).remove)


@dataclass(frozen=True)
class FactorOfProduct:
    """A gated network, ``down(function(gate(x)) * up(x))``, that computes its activation within its own forward.

    The product is formed again, from the changed activation, on its way into ``down``.
    """

    gate: nn.Module
    up: nn.Module
    down: nn.Module
    function: Callable[[torch.Tensor], torch.Tensor]

    def hook(self, change: Change, undo: ExitStack) -> None:
        """See :class:`Site`."""
        seen: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
            def after(_module: nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> None:
                seen[name] = output

            return after

        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
            activation, factor = self.function(seen.pop("gate")), seen.pop("up")
            changed = change(activation, not activation.requires_grad)
            return None if changed is None else (changed * factor, *inputs[1:])

        undo.callback(self.gate.register_forward_hook(keep("gate")).remove)
        undo.callback(self.up.register_forward_hook(keep("up")).remove)
        undo.callback(self.down.register_forward_pre_hook(before).remove)

"""Which positions of its input a model computes in a forward pass, and at which of them an intervention acts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import Positions


@dataclass(frozen=True)
class Pass:
    """One forward pass over ``[rows, positions]`` of inputs.

    Attributes:
        shape: Rows and positions; None: nobody said.
        acts: Where the intervention acts, bool ``[rows, positions]``; True: everywhere, False: nowhere.
        prompt: Which positions are real tokens of the prompt, bool ``[rows, positions]``; None: none, or nobody said.
        is_first: Whether sequences begin here; else they go on from earlier passes, whose results are in a cache.
        is_whole: Whether it covers the whole prompt, if it is the first.
    """

    shape: tuple[int, int] | None = None
    acts: torch.Tensor | bool = True
    prompt: torch.Tensor | None = None
    is_first: bool = True
    is_whole: bool = True


EVERYWHERE = Pass()
"""A pass of which nothing needs to be known."""


def told(mask: torch.Tensor | None, prompt: torch.Tensor | None) -> Pass:
    """Return a pass of which is known where the intervention acts, None: everywhere, and what the prompt is, or not.

    Raises:
        InterventionError: They are not ``[batch, positions]``, or differ in shape.
    """
    shapes = {tuple(given.shape) for given in (mask, prompt) if given is not None}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):  # batch and positions
        raise InterventionError(f"masks of shape {' and '.join(map(str, shapes))}: expected [batch, positions]")
    shape = None
    for rows, width in shapes:
        shape = rows, width
    return Pass(shape, True if mask is None else mask.bool(), None if prompt is None else prompt.bool())


def scored_positions(
    last_of_prompt: torch.Tensor, width: int, positions: Positions
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return where an intervention acts, None: everywhere, and which tokens are the prompt's, where texts are scored.

    Args:
        last_of_prompt: Position of the last token of each row's prompt, int64 ``[rows]``; padding is on the right.
        width: Of the rows, in tokens; masks are bool ``[rows, width]``.
        positions: See :data:`~lm_eval_amplify.intervention.Positions`.
    """
    at = torch.arange(width, device=last_of_prompt.device)
    last = last_of_prompt.unsqueeze(1)
    mask = {"all": None, "prompt": at < last, "generated": at >= last}[positions]
    return mask, at <= last


class Passes:
    """Forward passes, each whole and all with the same positions.

    Attributes:
        current: What the running one is.
        kept: What test-time statistics keep from pass to pass, by layer.
    """

    def __init__(self, current: Pass = EVERYWHERE) -> None:
        self.current = current
        self.kept: dict[int, torch.Tensor] = {}


class Generation(Passes):
    """The passes of one generation from a batch of prompts: the prompts, and then token after token.

    With a cache each later pass has the new positions alone, without one it has all again; rows may be repeated, as in
    beam search.

    Args:
        prompt: Which positions of the prompts are real tokens, bool or 0 and 1, ``[batch, positions]``; padding is on
            the left.
        positions: Where the intervention acts.
    """

    def __init__(self, prompt: torch.Tensor, positions: Positions) -> None:
        if prompt.dim() != 2:  # rows and positions
            raise InterventionError(f"prompt of shape {tuple(prompt.shape)}: expected [batch, positions]")
        super().__init__()
        self._prompt = prompt.bool()
        self._positions = positions
        self._done = 0

    def keep(self, rows: torch.Tensor) -> None:
        """Take the following passes to be of these rows, int64 ``[kept]``, of those before; each prompt has one."""
        self._prompt = self._prompt.index_select(0, rows.to(self._prompt.device))
        self.kept = {layer: own.index_select(0, rows.to(own.device)) for layer, own in self.kept.items()}

    def begin(self, rows: int, width: int) -> None:
        """Take the next pass to be over ``[rows, width]`` of inputs.

        Raises:
            InterventionError: The rows are not those of the prompts.
        """
        batch, length = self._prompt.shape
        if rows % batch:
            raise InterventionError(f"generation in {rows} rows from {batch} prompts: expected a row or several each")
        # As wide as the prompt: nothing is cached yet, or nothing at all. A prompt of one token is as wide as a step.
        is_first = self._done == 0 or width >= max(length, 2)
        start = 0 if is_first else self._done
        self._done = start + width
        if start >= length:
            self.current = Pass((rows, width), self._positions != "prompt", is_first=False)
            return
        prompt = torch.nn.functional.pad(self._prompt, (0, max(0, self._done - length)))[:, start : self._done]
        at = torch.arange(start, self._done, device=prompt.device)
        acts: torch.Tensor | bool = True
        if self._positions == "prompt":
            acts = prompt & (at < length - 1)
        elif self._positions == "generated":
            acts = (at >= length - 1).expand_as(prompt)
        if isinstance(acts, torch.Tensor):
            acts = acts.repeat_interleave(rows // batch, dim=0)
        prompt = prompt.repeat_interleave(rows // batch, dim=0)
        self.current = Pass((rows, width), acts, prompt, is_first=is_first, is_whole=self._done >= length)

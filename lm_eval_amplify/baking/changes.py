"""What baking changes of a checkpoint, computed while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lm_eval_amplify.baking.tensor_files import Made
from lm_eval_amplify.intervention import Edit


@dataclass(frozen=True)
class New:
    """A tensor that is changed or added.

    Attributes:
        beside: Name in the checkpoint of the tensor in whose place it comes, or beside which it goes.
        tensor: What it becomes.
    """

    beside: str
    tensor: Made


@dataclass(frozen=True)
class Changes:
    """A checkpoint's other form.

    Attributes:
        tensors: What is changed or added, by the name that it gets.
        names: New names of the tensors that get one, by the checkpoint's.
        config: Content of the new ``config.json``; None: as it is.
        intermediate_size: Neurons per layer (d_ff) that it grew to; None: it did not.
        rounding: By how much, at most, the type's rounding moves a constant that is written into it, as a share of it.
    """

    tensors: Mapping[str, New]
    names: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    intermediate_size: int | None = None
    rounding: float = 0.0


def simplified(edits: Sequence[Edit]) -> list[Edit]:
    """Return edits that do the same with fewer constants: set to 0 is scale by 0, and adding 0 is nothing."""
    found = []
    for edit in edits:
        is_zero = edit.value == 0 if edit.operation != "scale" else np.zeros(len(edit.value), bool)
        rest = Edit(edit.layer, edit.operation, edit.index[~is_zero], edit.value[~is_zero])
        zeros = Edit(edit.layer, "scale", edit.index[is_zero], edit.value[is_zero])
        found += [rest] if edit.operation == "add" else [rest, zeros]
    return [edit for edit in found if len(edit.index)]

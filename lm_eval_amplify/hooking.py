"""Changes activations as they are computed: everywhere, or at some positions of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch

from lm_eval_amplify.architecture import FeedForward
from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.intervention import Edit, Operation, TestTime
from lm_eval_amplify.positions import Passes
from lm_eval_amplify.test_time import statistic_of


@dataclass(frozen=True)
class DeviceEdit:
    """An edit as tensors on the device of its layer."""

    operation: Operation
    index: torch.Tensor  # int64 [neurons]
    value: torch.Tensor  # float64 [neurons], on the CPU: cast where the activation's type is known
    test_time: TestTime | None = None


def to_tensors(edit: Edit) -> DeviceEdit:
    """Return an edit as tensors, on the CPU."""
    return DeviceEdit(edit.operation, torch.from_numpy(edit.index), torch.from_numpy(edit.value), edit.test_time)


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: the activation's own, float32 for half types so that a factor keeps its digits."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def hook(block: FeedForward, edits: Sequence[DeviceEdit], undo: ExitStack, passes: Callable[[], Passes]) -> None:
    """Change the activation ``[..., d_ff]`` whenever it is computed.

    Args:
        block: Whose.
        edits: How.
        undo: Gets the removal of the hook.
        passes: Asked at each run for the passes that it belongs to.
    """
    placed: dict[tuple[torch.device, torch.dtype], list[DeviceEdit]] = {}
    name = next((edit.test_time for edit in edits if edit.test_time is not None), None)

    def change(activation: torch.Tensor, may_write: bool) -> torch.Tensor | None:
        running = passes()
        now = running.current
        if now.acts is False:
            return None
        key = (activation.device, activation.dtype)
        if key not in placed:
            compute = exact_type(activation.dtype)
            placed[key] = [
                replace(edit, index=edit.index.to(activation.device), value=edit.value.to(activation.device, compute))
                for edit in edits
            ]
        if not may_write:
            activation = activation.clone()
        changed = activation if now.shape is None else _by_position(activation, now.shape)
        statistic = None
        if name is not None:  # of the activation as it was: no edit may see what another one wrote
            statistic = statistic_of(name, changed.to(exact_type(changed.dtype)), now, block.layer, running.kept)
        for edit in placed[key]:
            _edit(changed, edit, now.acts, statistic)
        return activation

    block.hook(change, undo)


def _by_position(activation: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """The same memory as ``[rows, positions, d_ff]``."""
    leading = tuple(activation.shape[:-1])
    if leading not in (shape, (shape[0] * shape[1],)):
        raise InterventionError(
            f"an activation of shape {tuple(activation.shape)} for a mask of shape {shape}: give the mask "
            "[batch, positions] of the input of the forward pass that runs"
        )
    return activation if leading == shape else activation.view(*shape, activation.shape[-1])


def _edit(
    activation: torch.Tensor, edit: DeviceEdit, acts: torch.Tensor | bool, statistic: torch.Tensor | None
) -> None:
    value = edit.value
    if edit.test_time is not None and statistic is not None:
        value = value * statistic  # [rows, positions or 1, neurons]
    if edit.operation == "set" and acts is True and value.dim() == 1:
        activation[..., edit.index] = value.to(activation.dtype)
        return
    before = activation.index_select(-1, edit.index)
    match edit.operation:
        case "set":
            after = value.expand_as(before)
        case "add":
            after = before + value
        case "scale":
            after = before * value
    after = after.to(activation.dtype)
    if isinstance(acts, torch.Tensor):
        after = torch.where(acts.to(activation.device).unsqueeze(-1), after, before)
    activation.index_copy_(-1, edit.index, after)

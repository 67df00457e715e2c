"""The processes that ``accelerate launch`` or ``torchrun`` started together, or this one alone."""

from __future__ import annotations

import atexit
import os
from typing import Any, TypeVar

from lm_eval_amplify.errors import ModelError

Value = TypeVar("Value")


class Processes:
    """Which of how many this process is, and what it exchanges with the others.

    Raises:
        ModelError: There are others, but they do not know of each other.
    """

    def __init__(self) -> None:
        self.rank, self.number = 0, 1
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started > 1:
            import torch
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
            try:
                state = PartialState(cpu=on_cpu)
            except (ValueError, RuntimeError) as error:
                reason = str(error).partition("\n")[0]
                raise ModelError(f"one of {started} processes that cannot reach each other: {reason}") from error
            if state.num_processes != started:
                raise ModelError(
                    f"one of {started} processes, but accelerate knows of {state.num_processes}: start them with "
                    "`accelerate launch` or `torchrun`"
                )
            self.rank, self.number = state.process_index, state.num_processes
            leave_group_at_exit()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    @property
    def device(self) -> str | None:
        """The device that is this process's own; None where it is alone."""
        if self.number == 1:
            return None
        from accelerate import PartialState

        return str(PartialState().device)

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, in the processes' order; all must call it."""
        if self.number == 1:
            return [value]
        import torch.distributed

        found: list[Any] = [None] * self.number
        torch.distributed.all_gather_object(found, value)
        return found

    def of_first(self, value: Value) -> Value:
        """Return the first process's value; all must call it."""
        if self.number == 1:
            return value
        import torch.distributed

        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]


def leave_group_at_exit() -> None:
    """Have this process leave Gloo's group before the interpreter ends; may be called again.

    Gloo's threads drop a collective's tensors when they come to it, for which they need the interpreter's lock. One
    that asks for it while the interpreter ends takes the whole process down ("terminate called without an active
    exception"), after all work is done. Who leaves the group waits for its threads.
    """
    atexit.unregister(_leave_group)
    atexit.register(_leave_group)


def _leave_group() -> None:
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()

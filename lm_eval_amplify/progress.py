"""Progress of long runs on stderr: a bar on a terminal, a line now and then elsewhere, in a log say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 60.0
"""A stage that takes less says nothing where there is no terminal."""

Show = Callable[[str, int, int], None]


@contextmanager
def progress_bar(unit: str, *, is_shown: bool = True) -> Iterator[Show]:
    """Yield a function that shows how far a stage is: its name, how much is done, how much there is in all.

    Args:
        unit: What is counted, ``tokens`` say.
        is_shown: Whether this process shows anything.
    """
    console = Console(stderr=True)
    if not is_shown or not console.is_terminal:
        yield _Lines(unit, console).show if is_shown else lambda _stage, _done, _total: None
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(show_speed=False),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        _Speed(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield show


class _Speed(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self._unit}/s")


class _Lines:
    def __init__(self, unit: str, console: Console) -> None:
        self._unit = unit
        self._console = console
        self._stage = ""
        self._began = self._said = (0.0, 0)  # when, and how much was done

    def show(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage = stage
            self._began = self._said = (now, done)
        if now - self._said[0] < SECONDS_BETWEEN_LINES:
            return
        self._said = (now, done)
        speed = max((done - self._began[1]) / (now - self._began[0]), 1e-9)
        minutes, seconds = divmod(round((total - done) / speed), 60)
        self._console.print(
            f"{stage}: {done:,} of {total:,} {self._unit}, {speed:,.0f} {self._unit}/s, {minutes}:{seconds:02} left",
            highlight=False,
        )

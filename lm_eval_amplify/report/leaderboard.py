"""Results of many models ranked: a table for each task group and for each way that it was run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeAlias

from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.report.formatting import show
from lm_eval_amplify.report.tables import Column, Table
from lm_eval_amplify.results.entrants import Entrant
from lm_eval_amplify.results.files import find_results, read_results
from lm_eval_amplify.results.rows import Row, rows_of

TITLE = "Leaderboard"

_Key: TypeAlias = "tuple[str, str, str]"


class Place(NamedTuple):
    """An entrant of a board."""

    rank: int | None
    """From 1, the same for equal values; None where there is no number to rank."""
    entrant: Entrant
    rows: dict[str, Row]
    """By metric, the one that ranks first."""


class Board(NamedTuple):
    """Results of one task or group, all run in one way."""

    group: str
    protocol: str
    metrics: list[str]
    """Metric and filter; the first one ranks."""
    places: list[Place]
    others: int
    """How many further boards there are of the group, run differently."""


class Read(NamedTuple):
    """Rows of many files."""

    rows: list[Row]
    faults: list[str]
    """What was wrong with files that were left out."""


def read_rows(paths: Iterable[str | Path]) -> Read:
    """Return the rows of all results that paths name; of runs of the same thing the newest.

    Raises:
        ResultsError: A path is not there, or no file could be read.
    """
    newest: dict[tuple[Entrant, str, _Key], Row] = {}
    faults = []
    files = find_results(paths)
    for file in files:
        try:
            rows = rows_of(read_results(file))
        except ResultsError as error:
            faults.append(str(error))
            continue
        for row in rows:
            place = (row.entrant, row.protocol, row.key)
            if place not in newest or newest[place].date <= row.date:
                newest[place] = row
    if len(faults) == len(files):
        raise ResultsError(faults[0] if len(faults) == 1 else f"none of {len(files)} files can be read: {faults[0]}")
    return Read(list(newest.values()), faults)


def boards_of(rows: Iterable[Row], *, tasks: Sequence[str] = (), metric: str | None = None) -> list[Board]:
    """Return the boards, by group.

    Args:
        rows: Of any number of runs.
        tasks: Patterns of tasks and groups to rank; by default groups with a number of their own, and tasks that are in
            none.
        metric: The metric that ranks; by default each task's first one.

    Raises:
        ResultsError: No task has the metric, or a pattern is of none.
    """
    asked: dict[str, list[Row]] = {}
    known = set()
    for row in rows:
        known.add(row.task)
        if any(fnmatchcase(row.task, pattern) for pattern in tasks) if tasks else row.task == row.group:
            asked.setdefault(row.task, []).append(row)
    if not asked:
        raise ResultsError(
            f"no results of {', '.join(tasks) or 'any task'}: there are {', '.join(sorted(known)) or 'none'}"
        )
    boards = []
    for task in sorted(asked):
        by_protocol: dict[str, list[Row]] = {}
        for row in asked[task]:
            by_protocol.setdefault(row.protocol, []).append(row)
        for protocol, own in sorted(by_protocol.items()):
            if board := _board(task, protocol, own, metric, len(by_protocol) - 1):
                boards.append(board)
    if not boards:
        names = sorted({row.name for own in asked.values() for row in own})
        raise ResultsError(f"no task has the metric {metric!r}: there are {', '.join(names)}")
    return boards


def table_of(board: Board) -> Table:
    """Return a board as a table."""
    direction = {True: " ↑", False: " ↓", None: ""}
    first = [next(row for place in board.places if (row := place.rows.get(name))) for name in board.metrics]
    columns = [Column("rank", is_number=True), Column("model"), Column("condition")]
    columns += [Column(row.name + direction[row.higher_is_better], is_number=True) for row in first]
    columns += [Column("signature", is_long=True)]
    tables = "further table" if board.others == 1 else "further tables"
    note = f"{board.others} {tables} of {board.group}: not comparable, run differently."
    lines = [
        [
            "" if place.rank is None else str(place.rank),
            place.entrant.model,
            place.entrant.condition,
            *(_number(place.rows.get(name)) for name in board.metrics),
            place.entrant.signature,
        ]
        for place in board.places
    ]
    return Table(f"{board.group} ({board.protocol})", note if board.others else "", columns, lines)


def _board(task: str, protocol: str, rows: list[Row], metric: str | None, others: int) -> Board | None:
    names = _metrics(rows)
    if metric is not None:
        chosen = [name for name in names if metric in (name, name.partition(",")[0])]
        if not chosen:
            return None
        names = chosen[:1] + [name for name in names if name != chosen[0]]
    by_entrant: dict[Entrant, dict[str, Row]] = {}
    for row in rows:
        by_entrant.setdefault(row.entrant, {})[row.name] = row
    ranked = sorted(by_entrant.items(), key=lambda item: (*_order(item[1].get(names[0])), item[0]))
    values = [_order(own.get(names[0])) for _, own in ranked]
    places = [
        Place(None if value[0] else values.index(value) + 1, entrant, own)
        for (entrant, own), value in zip(ranked, values, strict=True)
    ]
    return Board(task, protocol, names, places, others)


def _metrics(rows: list[Row]) -> list[str]:
    """Metrics in the order of the first file; those of a single language are in the CSV only, they are too many."""
    names = dict.fromkeys(row.name for row in rows)
    short = [name for name in names if not _is_of_a_language(name)]
    return short or list(names)


def _is_of_a_language(name: str) -> bool:
    *_, language, script = ["", "", *name.partition(",")[0].split("_")]
    return len(language) == 3 and len(script) == 4 and script.istitle()  # as in ind_Latn


def _order(row: Row | None) -> tuple[bool, float]:
    """The best first; without a number or a direction last."""
    if row is None or math.isnan(row.value) or row.higher_is_better is None:
        return True, 0.0
    return False, -row.value if row.higher_is_better else row.value


def _number(row: Row | None) -> str:
    if row is None:
        return ""
    return show(row.value) + (f" ± {show(row.stderr)}" if row.stderr is not None else "")

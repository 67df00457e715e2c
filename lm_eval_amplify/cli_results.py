"""The commands on results: ``lm-eval-amplify leaderboard`` and ``lm-eval-amplify compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_amplify.cli_options import names_in, print_tables
from lm_eval_amplify.errors import ResultsError

_Results = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="Files of results, or folders with some, ours and stock.")
]
_Old = Annotated[Path, typer.Argument(help="File of results, or a folder with some.")]
_New = Annotated[Path, typer.Argument(help="Likewise.")]
_Tasks = Annotated[
    str | None, typer.Option(help="Only these tasks and groups, joined with commas: amplify_lss*,xcopa.")
]


class _FailOn(str, Enum):
    regression = "regression"
    change = "change"


class _Test(str, Enum):
    auto = "auto"
    paired = "paired"
    unpaired = "unpaired"


def leaderboard(
    results: _Results,
    tasks: _Tasks = None,
    metric: Annotated[str | None, typer.Option(help="Rank by this one; by default each task's first.")] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="Write it as well: .md, .html, or .csv with every row. May be repeated.")
    ] = None,
) -> None:
    """Rank results of the harness: a table for each task group, and for each way that it was run."""
    from dataclasses import astuple

    from lm_eval_amplify.report.leaderboard import TITLE, boards_of, read_rows, table_of
    from lm_eval_amplify.report.tables import as_csv, as_html, as_markdown
    from lm_eval_amplify.results.rows import COLUMNS

    read = read_rows(results)
    for fault in read.faults:
        typer.echo(f"warning: left out: {fault}", err=True)
    tables = [table_of(board) for board in boards_of(read.rows, tasks=names_in(tasks), metric=metric)]
    writers: dict[str, Callable[[], str]] = {
        ".md": lambda: as_markdown(TITLE, tables),
        ".html": lambda: as_html(TITLE, tables),
        ".csv": lambda: as_csv(COLUMNS, [astuple(row) for row in read.rows]),
    }
    _write(out or [], writers)
    print_tables(tables)


def compare(
    old: _Old,
    new: _New,
    fail_on: Annotated[
        _FailOn,
        typer.Option(
            help="regression: worse by more than the tolerance and more than chance; change: any difference of more "
            "than the tolerance."
        ),
    ] = _FailOn.regression,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            help="What does not matter: 0.01, 1% of the old value, or METRIC=0.01. May be repeated; the last "
            "that is for a metric holds.  [default: 0.01]"
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Share of comparisons without a change that may fail.")
    ] = 0.05,
    correction: Annotated[
        bool, typer.Option(help="--alpha is for all metrics together (Holm), or for each by itself.")
    ] = True,
    test: Annotated[
        _Test,
        typer.Option(help="paired: by document, from samples; unpaired: by standard errors; auto: whichever can be."),
    ] = _Test.auto,
    tasks: _Tasks = None,
    metrics: Annotated[str | None, typer.Option(help="Only these metrics, joined with commas: acc,lss*.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print what is the same, too.")] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write it as well: .md, .html, .csv, or .xml for JUnit. May be repeated."),
    ] = None,
) -> None:
    """Compare results with older ones, and fail where they got worse.

    Exit status: 0 the same or better, 1 a regression, 3 not comparable (another task version, other documents, a task
    that is missing), 2 a mistake or a damaged file.
    """
    from lm_eval_amplify.report import comparison_page as page
    from lm_eval_amplify.report.comparing import Rules
    from lm_eval_amplify.report.comparing import compare as compare_results
    from lm_eval_amplify.report.tables import as_csv, as_html, as_markdown
    from lm_eval_amplify.report.tolerance import Tolerance

    rules = Rules(fail_on.value, Tolerance.parse(tolerance or []), alpha, correction, test.value)
    comparison = compare_results(old, new, rules, tasks=names_in(tasks), metrics=names_in(metrics))
    everything = page.tables_of(comparison, is_short=False)
    short = page.tables_of(comparison, is_short=not show_all)
    writers: dict[str, Callable[[], str]] = {
        ".md": lambda: as_markdown(page.TITLE, short),
        ".html": lambda: as_html(page.TITLE, everything),
        ".csv": lambda: as_csv(page.CSV_COLUMNS, page.csv_rows(comparison)),
        ".xml": lambda: page.as_junit(comparison),
    }
    _write(out or [], writers)
    for line in [*(f"note: {note}" for note in comparison.notes), *page.reasons(comparison)]:
        typer.echo(line, err=True)
    print_tables(short)
    raise typer.Exit(comparison.exit_status)


def _write(paths: Sequence[Path], writers: Mapping[str, Callable[[], str]]) -> None:
    from lm_eval_amplify.whole_files import whole_file

    for path in paths:
        if path.suffix not in writers:
            raise ResultsError(f"--out {path}: the name ends in none of {', '.join(writers)}")
    for path in paths:
        content = writers[path.suffix]().encode()
        try:
            with whole_file(path) as file:
                file.write(content)
        except OSError as error:  # a file or two
            raise ResultsError(f"--out {path}: cannot be written: {error.strerror}") from error

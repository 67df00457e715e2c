"""The command ``lm-eval-amplify report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_amplify.cli_options import print_tables


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study, finished or not.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report.  [default: FOLDER/report]")] = None,
) -> None:
    """Make tables and figures of a study: a page that opens without a network, and each of them as a file."""
    from lm_eval_amplify.report.study.writing import make_report, write_report
    from lm_eval_amplify.sweep.store import read_study

    stored = read_study(folder)
    made = make_report(stored)
    page = write_report(made, out or folder / "report")
    if stored.missing:
        number = len(stored.missing)
        units = "1 unit of results is" if number == 1 else f"{number} units of results are"
        typer.echo(f"warning: the study is not finished: {units} missing", err=True)
    print_tables([made.summary])
    typer.echo(f"The report is in {page}")

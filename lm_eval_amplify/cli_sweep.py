"""The command ``lm-eval-amplify sweep``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lm_eval_amplify.sweep.prepare import Prepared


def sweep(
    study: Annotated[Path, typer.Argument(metavar="STUDY.YAML", help="The study: docs/studies.md says what is in it.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study.  [default: results/ and the file's name]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, its requests and about how long it takes; run nothing.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An entry instead of the file's: model.device=cpu. Repeatable."
        ),
    ] = None,
) -> None:
    """Run a study: compare interventions on the same tasks, choose the best for each language, evaluate with it.

    What is finished is kept: after a stop, of whatever kind, the same command goes on from there.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # the harness's bars, of every task anew; before it is imported
    from lm_eval_amplify import plugin
    from lm_eval_amplify.progress import progress_bar
    from lm_eval_amplify.sweep.study_file import read_study_file

    file = read_study_file(study, changes or ())
    plugin.install()
    from lm_eval_amplify.sweep.prepare import prepare
    from lm_eval_amplify.sweep.run import run_study

    prepared = prepare(file)
    if dry_run:
        _print_plan(prepared)
        return
    folder = out if out is not None else Path("results") / file.name
    with progress_bar("") as report:
        finished = run_study(prepared, folder, report)
    kept = f", {finished.kept} were there" if finished.kept else ""
    typer.echo(f"{finished.ran} units ran{kept}: {folder}")
    for language, found in ((finished.chosen or {}).get("languages") or {}).items():
        condition = found["condition"]
        held_out = found["held_out"]
        said = "nothing chosen" if condition is None else f"{condition['label']}, {held_out:.3f} held out"
        typer.echo(f"  {language}: {said}")
    typer.echo(f"next: lm-eval-amplify report {folder}")


def _print_plan(prepared: Prepared) -> None:
    from lm_eval_amplify.sweep.estimate import estimate
    from lm_eval_amplify.sweep.neurons import model_name

    study = prepared.file.study
    typer.echo(f"study {prepared.file.name}: {model_name(study)}")
    source = f"of {study.neurons}" if study.neurons else f"to be found on {study.identify and study.identify.corpus}"
    typer.echo(f"neurons {source}; {len(prepared.languages)} target languages: {', '.join(prepared.languages)}")
    typer.echo(f"{len(prepared.conditions)} conditions: {'; '.join(one.label for one in prepared.conditions)}")
    if study.controls.random:
        typer.echo(f"each with random neurons too, seeds {', '.join(map(str, study.controls.random))}")
    works = estimate(prepared)
    typer.echo(f"\n{'stage':<7} {'task':<36} {'units':>6} {'requests':>10} {'about':>9}")
    for work in works:
        taken = "" if work.seconds is None else _duration(work.seconds)
        typer.echo(f"{work.stage:<7} {work.task:<36} {work.units:>6} {work.requests:>10,} {taken:>9}")
    units, requests = sum(work.units for work in works), sum(work.requests for work in works)
    total = _duration(sum(work.seconds or 0 for work in works))
    typer.echo(f"{'in all':<44} {units:>6} {requests:>10,} {total:>9}")
    if study.then is not None:
        typer.echo("those of `then` as if a condition is found for every language")
    if study.identify is not None or study.controls.random:
        typer.echo("and what finding neurons, or the statistics of random ones, takes")


def _duration(seconds: float) -> str:
    """As ``2 h 05 min``.

    >>> [_duration(40), _duration(300), _duration(7500)]
    ['40 s', '5 min', '2 h 05 min']
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"

"""The command ``lm-eval-amplify``: one thin function per subcommand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lm_eval_amplify.cli_bake import bake
from lm_eval_amplify.cli_generate import generate
from lm_eval_amplify.cli_neurons import neurons_app
from lm_eval_amplify.cli_options import (
    CORPUS,
    AllowShort,
    BatchSize,
    ChatTemplate,
    Device,
    DeviceMap,
    DType,
    MaxLength,
    Out,
    Revision,
    Statistics,
    Tokens,
    names_in,
    statistics_in,
    texts_of,
    write_and_show,
)
from lm_eval_amplify.cli_report import report
from lm_eval_amplify.cli_results import compare, leaderboard
from lm_eval_amplify.cli_sweep import sweep
from lm_eval_amplify.errors import AmplifyError

if TYPE_CHECKING:
    from lm_eval_amplify.tasks_support.mirroring import Report

app = typer.Typer(
    help="Find, amplify and measure language-specific neurons with the lm-evaluation-harness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate)
app.add_typer(neurons_app, name="neurons")
app.command("sweep")(sweep)
app.command("report")(report)
app.command("leaderboard")(leaderboard)
app.command("compare")(compare)
data_app = typer.Typer(help="Make a local mirror of the tasks' datasets, and verify one.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command("bake")(bake)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from lm_eval_amplify import __version__

        typer.echo(__version__)


@app.command("demo")
def demo(
    out: Annotated[Path | None, typer.Option(help="Folder that keeps the neurons and the harness's results.")] = None,
) -> None:
    """See the whole of it on the embedded model, in about a minute, without a network."""
    from lm_eval_amplify.demo import run_demo
    from lm_eval_amplify.demo_page import show_outcome
    from lm_eval_amplify.progress import progress_bar

    with progress_bar("") as report:
        outcome = run_demo(out, report)
    show_outcome(outcome, out)


@app.command("identify")
def identify(
    model: Annotated[str, typer.Option(help="Model on the Hub, or its folder.")],
    corpus: Annotated[str, typer.Option(help=CORPUS)],
    out: Out,
    languages: Annotated[
        str | None, typer.Option(help="Joined with commas: ind_Latn,est_Latn; by default all of the corpus.")
    ] = None,
    tokens: Tokens = None,
    method: Annotated[str, typer.Option(help="lape, activation or random.")] = "lape",
    top_rate: Annotated[
        float | None, typer.Option(help="lape, random: share of all neurons that is chosen.  [default: 0.01]")
    ] = None,
    filter_rate: Annotated[
        float | None, typer.Option(help="lape: quantile to exceed in some language.  [default: 0.95]")
    ] = None,
    activation_bar_ratio: Annotated[
        float | None, typer.Option(help="lape: quantile to exceed in its own.  [default: 0.95]")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="activation: neurons of the highest mean; by default those active everywhere.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="random: gives the same neurons each time.  [default: 0]")] = None,
    statistics: Statistics = None,
    allow_short: AllowShort = False,
    chat_template: ChatTemplate = False,
    max_length: MaxLength = 512,
    batch_size: BatchSize = 8,
    revision: Revision = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: DType = "auto",
    counts: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the counts of each language, in the form of LAPE's reference."),
    ] = None,
) -> None:
    """Find the neurons of each language in a model, with the statistics that amplification needs.

    What is found of each language is kept in <OUT>.counts until the end: an interrupted run goes on from there. Under
    `accelerate launch -m lm_eval_amplify.cli identify ...` the processes share the texts out.
    """
    from lm_eval_amplify.identify import Keeping, make_method
    from lm_eval_amplify.identify import identify as find
    from lm_eval_amplify.identify.loading import load_model
    from lm_eval_amplify.neurons import check_writable
    from lm_eval_amplify.processes import Processes
    from lm_eval_amplify.progress import progress_bar
    from lm_eval_amplify.provenance import model_hash

    chosen = make_method(
        method,
        {
            "top_rate": top_rate,
            "filter_rate": filter_rate,
            "activation_bar_ratio": activation_bar_ratio,
            "top_k": top_k,
            "seed": seed,
        },
    )
    names = statistics_in(statistics)
    texts = texts_of(
        corpus,
        tokens,
        allow_short=allow_short,
        max_length=max_length,
        batch_size=batch_size,
        chat_template=chat_template,
    )
    codes = texts.resolve(names_in(languages))
    chosen.check(codes)
    check_writable(out)
    processes = Processes()
    loaded = load_model(model, revision=revision, device=device or processes.device, device_map=device_map, dtype=dtype)
    identity = f"{model_hash(loaded.model, model)} {next(loaded.model.parameters()).dtype}"
    keeping = Keeping(counts or out.with_name(f"{out.name}.counts"), identity)
    with progress_bar("tokens", is_shown=processes.is_first) as report:
        content = find(
            *loaded,
            texts,
            codes,
            method=chosen,
            statistics=names,
            model_name=model,
            report=report,
            keeping=keeping,
        )
    if processes.is_first:
        write_and_show(content, out)
        if counts is None:
            keeping.clear()


_Flores = Annotated[str | None, typer.Option(help="Further languages of FLORES, joined with commas.")]


@data_app.command("mirror")
def mirror(
    tasks: Annotated[str, typer.Option(help="Tasks, groups, tags or patterns of ours, joined with commas.")],
    out: Annotated[Path, typer.Option(help="Folder of the mirror; what is there already is kept.")],
    flores: _Flores = None,
) -> None:
    """Write the datasets of tasks into a folder, on a machine with a network, for one without."""
    from lm_eval_amplify.tasks_support.mirroring import mirror_data, wanted_data

    _print_reports(mirror_data(wanted_data(names_in(tasks), names_in(flores)), out), "not mirrored")


@data_app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="The mirror.")],
    tasks: Annotated[
        str | None, typer.Option(help="Tasks whose data must be there; by default all that is there is checked.")
    ] = None,
    flores: _Flores = None,
) -> None:
    """Read every file of a mirror: layout, columns, numbers of rows, rows that cannot be scored."""
    from lm_eval_amplify.tasks_support.mirroring import check_mirror, wanted_data

    wanted = wanted_data(names_in(tasks), names_in(flores)) if tasks or flores else None
    _print_reports(check_mirror(folder, wanted), "faulty")


def _print_reports(reports: Iterator[Report], fault: str) -> None:
    """Print what was found of each split; end in an error where any is faulty."""
    number = faulty = 0
    for number, (place, rows, said, is_faulty) in enumerate(reports, start=1):  # noqa: B007  # counted below
        faulty += is_faulty
        if not is_faulty:
            typer.echo(f"{place}: {rows} rows")
        for line in said:
            typer.echo(f"error: {line}" if is_faulty else f"    warning: {line}")
    if faulty:
        raise AmplifyError(f"{faulty} {fault}, {number - faulty} sound")


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    try:
        app()
    except AmplifyError as error:
        print(f"lm-eval-amplify: error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

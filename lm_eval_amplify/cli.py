"""The command ``lm-eval-amplify``: one thin function per subcommand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lm_eval_amplify.errors import AmplifyError

if TYPE_CHECKING:
    from lm_eval_amplify.tasks_support.mirroring import Report

app = typer.Typer(
    help="Find, amplify and measure language-specific neurons with the lm-evaluation-harness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
neurons_app = typer.Typer(help="Look at neuron files, and make them from other formats.", no_args_is_help=True)
app.add_typer(neurons_app, name="neurons")
data_app = typer.Typer(help="Make a local mirror of the tasks' datasets, and verify one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from lm_eval_amplify import __version__

        typer.echo(__version__)


_Tokens = Annotated[int, typer.Option(min=1, help="Tokens to read in each language: exactly the first N.")]
_AllowShort = Annotated[bool, typer.Option("--allow-short", help="Let a language have fewer.")]
_MaxLength = Annotated[int, typer.Option(min=1, help="Most tokens in a row; longer documents are cut.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Rows of --max-length tokens in a forward pass.")]
_Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda:1, ...; by default a GPU if there is one.")]
_DType = Annotated[str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.")]


@app.command("identify")
def identify(
    model: Annotated[str, typer.Option(help="Model on the Hub, or its folder.")],
    corpus: Annotated[str, typer.Option(help="text:DIR with DIR/<language>.txt[.gz], a document a line.")],
    out: Annotated[Path, typer.Option(help="Neuron file to write.")],
    languages: Annotated[
        str | None, typer.Option(help="Joined with commas: ind_Latn,est_Latn; by default all of the corpus.")
    ] = None,
    tokens: _Tokens = 100_000,
    top_rate: Annotated[float, typer.Option(help="Share of all neurons that is chosen.")] = 0.01,
    filter_rate: Annotated[float, typer.Option(help="Quantile to exceed in some language.")] = 0.95,
    activation_bar_ratio: Annotated[float, typer.Option(help="Quantile to exceed in its own.")] = 0.95,
    allow_short: _AllowShort = False,
    max_length: _MaxLength = 512,
    batch_size: _BatchSize = 8,
    revision: _Revision = None,
    device: _Device = None,
    dtype: _DType = "auto",
) -> None:
    """Find the neurons of each language in a model by LAPE, with the statistics that amplification needs."""
    from lm_eval_amplify.identify import Lape, Texts, open_corpus
    from lm_eval_amplify.identify import identify as find
    from lm_eval_amplify.identify.loading import load_model
    from lm_eval_amplify.neurons import check_writable, write_neurons
    from lm_eval_amplify.neurons.show import describe
    from lm_eval_amplify.progress import progress_bar

    method = Lape(top_rate, filter_rate, activation_bar_ratio)
    texts = Texts(open_corpus(corpus), tokens, allow_short, max_length, batch_size)
    codes = texts.resolve([name.strip() for name in languages.split(",")] if languages else [])
    method.check(codes)
    check_writable(out)
    loaded = load_model(model, revision=revision, device=device, dtype=dtype)
    with progress_bar("tokens") as report:
        content = find(*loaded, texts, codes, method=method, model_name=model, report=report)
    write_neurons(content, out)
    typer.echo(describe(content))
    typer.echo(f"\nwritten to {out}")


@neurons_app.command("show")
def show(
    file: Annotated[str, typer.Argument(help="Path, hf://org/repo/file[@revision], or the name of a bundled file.")],
) -> None:
    """Print a neuron file's manifest and, per language, its neurons and their share by layer."""
    from lm_eval_amplify.neurons import locate_neurons, read_neurons
    from lm_eval_amplify.neurons.show import describe

    typer.echo(describe(read_neurons(locate_neurons(file))))


@neurons_app.command("import")
def import_mask(
    file: Annotated[Path, typer.Argument(help="Mask of the LAPE reference implementation (.pth).")],
    languages: Annotated[str, typer.Option(help="Its languages in order, joined with commas: en,zh,fr")],
    out: Annotated[Path, typer.Option(help="Neuron file to write.")],
    model: Annotated[str | None, typer.Option(help="Name of the model that the mask belongs to, to record.")] = None,
    intermediate_size: Annotated[
        int | None, typer.Option(min=1, help="Neurons per layer (d_ff), to record and to check against.")
    ] = None,
) -> None:
    """Make a neuron file from a reference mask."""
    from lm_eval_amplify.neurons import write_neurons
    from lm_eval_amplify.neurons.reference import import_reference_mask
    from lm_eval_amplify.neurons.show import describe

    names = [name.strip() for name in languages.split(",")]
    content = import_reference_mask(file, names, model=model, intermediate_size=intermediate_size)
    write_neurons(content, out)
    typer.echo(describe(content))
    typer.echo(f"\nwritten to {out}")


@neurons_app.command("random")
def random_control(
    file: Annotated[str, typer.Argument(help="Neuron file to make a control for, named as for `show`.")],
    seed: Annotated[int, typer.Option(min=0, help="Gives the same neurons each time.")],
    out: Annotated[Path, typer.Option(help="Neuron file to write.")],
    model: Annotated[str | None, typer.Option(help="The file's model, on the Hub or its folder.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Texts in the file's languages: text:DIR.")] = None,
    tokens: _Tokens = 100_000,
    allow_short: _AllowShort = False,
    max_length: _MaxLength = 512,
    batch_size: _BatchSize = 8,
    revision: _Revision = None,
    device: _Device = None,
    dtype: _DType = "auto",
) -> None:
    """Draw as many random neurons per language and layer, none of them the file's.

    With --model and --corpus they get statistics, which the operations `set` and `add` need.
    """
    from lm_eval_amplify.neurons import check_writable, locate_neurons, read_neurons, write_neurons
    from lm_eval_amplify.neurons.random_control import random_control as draw
    from lm_eval_amplify.neurons.show import describe

    if (model is None) != (corpus is None):
        raise AmplifyError("statistics need both --model and --corpus: give both, or neither")
    check_writable(out)
    content = read_neurons(locate_neurons(file))
    if model is None or corpus is None:
        content = draw(content, seed)
    else:
        from lm_eval_amplify.identify import Texts, open_corpus
        from lm_eval_amplify.identify import random_control as draw_with_statistics
        from lm_eval_amplify.identify.loading import load_model
        from lm_eval_amplify.progress import progress_bar

        texts = Texts(open_corpus(corpus), tokens, allow_short, max_length, batch_size)
        texts.resolve(content.languages)
        loaded = load_model(model, revision=revision, device=device, dtype=dtype)
        with progress_bar("tokens") as report:
            content = draw_with_statistics(content, seed, *loaded, texts, report=report)
    write_neurons(content, out)
    typer.echo(describe(content))
    if model is None:
        typer.echo("\nno statistics: operations set and add need them; give --model and --corpus")
    typer.echo(f"\nwritten to {out}")


_Flores = Annotated[str | None, typer.Option(help="Further languages of FLORES, joined with commas.")]


@data_app.command("mirror")
def mirror(
    tasks: Annotated[str, typer.Option(help="Tasks, groups, tags or patterns of ours, joined with commas.")],
    out: Annotated[Path, typer.Option(help="Folder of the mirror; what is there already is kept.")],
    flores: _Flores = None,
) -> None:
    """Write the datasets of tasks into a folder, on a machine with a network, for one without."""
    from lm_eval_amplify.tasks_support.mirroring import mirror_data, wanted_data

    _print_reports(mirror_data(wanted_data(_names(tasks), _names(flores)), out), "not mirrored")


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

    wanted = wanted_data(_names(tasks), _names(flores)) if tasks or flores else None
    _print_reports(check_mirror(folder, wanted), "faulty")


def _names(joined: str | None) -> list[str]:
    return [name.strip() for name in (joined or "").split(",") if name.strip()]


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

"""The commands ``lm-eval-amplify neurons ...``: one thin function each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lm_eval_amplify.cli_options import (
    CORPUS,
    AllowShort,
    BatchSize,
    ChatTemplate,
    Device,
    DeviceMap,
    DType,
    FileArgument,
    MaxLength,
    Out,
    Plot,
    Revision,
    Statistics,
    Tokens,
    names_in,
    statistics_in,
    texts_of,
    write_and_show,
)
from lm_eval_amplify.errors import AmplifyError

if TYPE_CHECKING:
    from lm_eval_amplify.neurons import NeuronFile

neurons_app = typer.Typer(help="Look at neuron files, combine, convert and share them.", no_args_is_help=True)

_Languages = Annotated[str, typer.Option(help="Their languages in order, joined with commas: en,zh,fr")]
_ModelName = Annotated[str | None, typer.Option("--model", help="Name of the model that they are of, to record.")]
_Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Two neuron files or more.")]


@neurons_app.command("show")
def show(file: FileArgument, plot: Plot = None) -> None:
    """Print a neuron file's manifest and, per language, its neurons and their share by layer."""
    from lm_eval_amplify.neurons.show import describe

    content = _read(file)
    if plot is not None:
        from lm_eval_amplify.neurons.plots import plot_neurons

        plot_neurons(content, plot)
    typer.echo(describe(content))
    if plot is not None:
        typer.echo(f"\ndrawn into {plot}")


@neurons_app.command("overlap")
def overlap(
    file: FileArgument,
    other: Annotated[str | None, typer.Argument(help="A second one: its languages across, the first's down.")] = None,
    plot: Plot = None,
) -> None:
    """Print how much of their neurons languages share (Jaccard), within a file or between two."""
    from lm_eval_amplify.neurons.sets import jaccard
    from lm_eval_amplify.neurons.show import describe_overlap

    rows = _read(file)
    columns = rows if other is None else _read(other)
    shares = jaccard(rows, columns)
    if plot is not None:
        from lm_eval_amplify.neurons.plots import plot_overlap

        plot_overlap(shares, rows, columns, plot)
    typer.echo(describe_overlap(shares, rows, columns))
    if plot is not None:
        typer.echo(f"\ndrawn into {plot}")


@neurons_app.command("union")
def union(files: _Files, out: Out) -> None:
    """Write, of each language, the neurons that any file has."""
    from lm_eval_amplify.neurons import sets

    write_and_show(sets.union([_read(file) for file in files]), out)


@neurons_app.command("intersect")
def intersect(files: _Files, out: Out) -> None:
    """Write, of each language that all files have, the neurons that all have; statistics are the first's."""
    from lm_eval_amplify.neurons import sets

    write_and_show(sets.intersect([_read(file) for file in files]), out)


@neurons_app.command("subtract")
def subtract(files: _Files, out: Out) -> None:
    """Write the first file without the neurons that the others have in the same language."""
    from lm_eval_amplify.neurons import sets

    write_and_show(sets.subtract([_read(file) for file in files]), out)


@neurons_app.command("import")
def import_mask(
    file: Annotated[Path, typer.Argument(help="Mask of the LAPE reference implementation (.pth).")],
    languages: _Languages,
    out: Out,
    model: _ModelName = None,
    intermediate_size: Annotated[
        int | None, typer.Option(min=1, help="Neurons per layer (d_ff), to record and to check against.")
    ] = None,
) -> None:
    """Make a neuron file from a reference mask."""
    from lm_eval_amplify.neurons.reference import import_reference_mask

    write_and_show(
        import_reference_mask(file, names_in(languages), model=model, intermediate_size=intermediate_size), out
    )


@neurons_app.command("export")
def export_mask(
    file: FileArgument, out: Annotated[Path, typer.Option(help="Mask of the reference implementation to write (.pth).")]
) -> None:
    """Make a reference mask from a neuron file; says what it has no place for."""
    from lm_eval_amplify.neurons.reference import export_reference_mask

    content = _read(file)
    lost = export_reference_mask(content, out)
    typer.echo(f"written to {out}, languages in order: {','.join(content.languages)}")
    typer.echo(f"warning: a mask has no place for these, they are not in it: {', '.join(lost)}", err=True)


@neurons_app.command("import-counts")
def import_counts(
    files: Annotated[
        list[Path], typer.Argument(help="Activation counts of the reference implementation, a language each.")
    ],
    languages: _Languages,
    out: Out,
    model: _ModelName = None,
    top_rate: Annotated[float, typer.Option(help="Share of all neurons that is chosen.")] = 0.01,
    filter_rate: Annotated[float, typer.Option(help="Quantile to exceed in some language.")] = 0.95,
    activation_bar_ratio: Annotated[float, typer.Option(help="Quantile to exceed in its own.")] = 0.95,
) -> None:
    """Choose neurons by LAPE from counts made before, the reference's or those of `identify --counts`."""
    from lm_eval_amplify.identify import Lape
    from lm_eval_amplify.identify.reference_counts import neurons_from_counts, read_counts

    method = Lape(top_rate, filter_rate, activation_bar_ratio)
    counts = read_counts(files, names_in(languages))
    source = [path.name for path in files]
    write_and_show(neurons_from_counts(counts, method, model=model, source=source), out)


@neurons_app.command("statistics")
def statistics(
    file: FileArgument,
    model: Annotated[str, typer.Option(help="The file's model, on the Hub or its folder.")],
    corpus: Annotated[str, typer.Option(help=f"Texts in the file's languages: {CORPUS}")],
    out: Out,
    statistics: Statistics = None,
    tokens: Tokens = None,
    allow_short: AllowShort = False,
    chat_template: ChatTemplate = False,
    max_length: MaxLength = 512,
    batch_size: BatchSize = 8,
    revision: Revision = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: DType = "auto",
) -> None:
    """Add statistics to a neuron file that lacks them, an imported mask say."""
    from lm_eval_amplify.identify import add_statistics
    from lm_eval_amplify.identify.loading import load_model
    from lm_eval_amplify.neurons import check_writable
    from lm_eval_amplify.processes import Processes
    from lm_eval_amplify.progress import progress_bar

    names = statistics_in(statistics)
    check_writable(out)
    content = _read(file)
    texts = texts_of(
        corpus,
        tokens,
        allow_short=allow_short,
        max_length=max_length,
        batch_size=batch_size,
        chat_template=chat_template,
    )
    texts.resolve(content.languages)
    processes = Processes()
    loaded = load_model(model, revision=revision, device=device or processes.device, device_map=device_map, dtype=dtype)
    with progress_bar("tokens", is_shown=processes.is_first) as report:
        content = add_statistics(content, *loaded, texts, statistics=names, report=report)
    if processes.is_first:
        write_and_show(content, out)


@neurons_app.command("random")
def random_control(
    file: FileArgument,
    seed: Annotated[int, typer.Option(min=0, help="Gives the same neurons each time.")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="The file's model, on the Hub or its folder.")] = None,
    corpus: Annotated[str | None, typer.Option(help=f"Texts in the file's languages: {CORPUS}")] = None,
    tokens: Tokens = None,
    allow_short: AllowShort = False,
    chat_template: ChatTemplate = False,
    max_length: MaxLength = 512,
    batch_size: BatchSize = 8,
    revision: Revision = None,
    device: Device = None,
    dtype: DType = "auto",
) -> None:
    """Draw as many random neurons per language and layer, none of them the file's.

    With --model and --corpus they get statistics, which the operations `set` and `add` need.
    """
    from lm_eval_amplify.neurons import check_writable
    from lm_eval_amplify.neurons.random_control import random_control as draw

    if (model is None) != (corpus is None):
        raise AmplifyError("statistics need both --model and --corpus: give both, or neither")
    check_writable(out)
    content = _read(file)
    if model is None or corpus is None:
        write_and_show(draw(content, seed), out)
        typer.echo("no statistics: operations set and add need them; give --model and --corpus")
        return
    from lm_eval_amplify.identify import random_control as draw_with_statistics
    from lm_eval_amplify.identify.loading import load_model
    from lm_eval_amplify.progress import progress_bar

    texts = texts_of(
        corpus,
        tokens,
        allow_short=allow_short,
        max_length=max_length,
        batch_size=batch_size,
        chat_template=chat_template,
    )
    texts.resolve(content.languages)
    loaded = load_model(model, revision=revision, device=device, dtype=dtype)
    with progress_bar("tokens") as report:
        content = draw_with_statistics(content, seed, *loaded, texts, report=report)
    write_and_show(content, out)


@neurons_app.command("push")
def push(
    file: Annotated[Path, typer.Argument(help="Neuron file.")],
    repository: Annotated[str, typer.Argument(help="Repository on the Hub, org/repo; made if there is none.")],
    revision: Annotated[str | None, typer.Option(help="Branch; by default the main one.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Put a neuron file on the Hub, with a card."""
    from lm_eval_amplify.neurons.share import push_neurons

    typer.echo(f"pushed: neurons={push_neurons(file, repository, revision=revision, private=private)}")


def _read(file: str) -> NeuronFile:
    from lm_eval_amplify.neurons import locate_neurons, read_neurons

    return read_neurons(locate_neurons(file))

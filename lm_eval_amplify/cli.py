"""The command ``lm-eval-amplify``: one thin function per subcommand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lm_eval_amplify.errors import AmplifyError

app = typer.Typer(
    help="Find, amplify and measure language-specific neurons with the lm-evaluation-harness.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
neurons_app = typer.Typer(help="Look at neuron files, and make them from other formats.", no_args_is_help=True)
app.add_typer(neurons_app, name="neurons")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from lm_eval_amplify import __version__

        typer.echo(__version__)


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


def main() -> None:
    """Run the command line; a user's mistake is one line and exit status 2."""
    try:
        app()
    except AmplifyError as error:
        print(f"lm-eval-amplify: error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

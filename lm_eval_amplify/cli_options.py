"""Options that several subcommands share, and what they make of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lm_eval_amplify.identify import Texts
    from lm_eval_amplify.neurons import NeuronFile
    from lm_eval_amplify.report.tables import Table

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Path, hf://org/repo/file[@revision], or the name of a bundled file.")
]
Out = Annotated[Path, typer.Option(help="Neuron file to write.")]
Plot = Annotated[Path | None, typer.Option(help="Draw it into this file as well: .png, .svg, .pdf.")]

Tokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Tokens to read in each language: exactly the first N.  [default: 100000; of flores 20000]"
    ),
]
AllowShort = Annotated[bool, typer.Option("--allow-short", help="Let a language have fewer.")]
MaxLength = Annotated[int, typer.Option(min=1, help="Most tokens in a row; longer documents are cut.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows of --max-length tokens in a forward pass.")]
ChatTemplate = Annotated[
    bool, typer.Option("--chat-template", help="Put each text into the user's turn; only its own tokens count.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda:1, ...; by default a GPU if there is one.")]
DeviceMap = Annotated[str | None, typer.Option(help="auto: spread the model over all devices.")]
DType = Annotated[str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.")]
Statistics = Annotated[
    str | None, typer.Option(help="Joined with commas, or none: max,median; by default all that there are.")
]

CORPUS = (
    "text:DIR with DIR/<language>.txt[.gz], a document a line; jsonl:DIR[?text=FIELD]; flores[:MIRROR]; "
    "hub:ORG/NAME[?text=COLUMN&split=SPLIT&config=FORM]; or babel, which ships with the package."
)


def names_in(joined: str | None) -> list[str]:
    """Return names that are joined with commas."""
    return [name.strip() for name in (joined or "").split(",") if name.strip()]


def statistics_in(joined: str | None) -> tuple[str, ...]:
    """Return the statistics that ``--statistics`` names.

    Raises:
        IdentificationError: There is none of a name.
    """
    from lm_eval_amplify.identify.statistics import STATISTICS, check_statistics

    if joined is None:
        return STATISTICS
    return () if joined.strip() == "none" else check_statistics(names_in(joined))


def texts_of(
    corpus: str,
    tokens: int | None,
    *,
    allow_short: bool,
    max_length: int,
    batch_size: int,
    chat_template: bool,
) -> Texts:
    """Return the texts that options name.

    Raises:
        DataError: There is no such corpus.
    """
    from lm_eval_amplify.identify import Texts, open_corpus, usual_tokens

    opened = open_corpus(corpus)
    return Texts(opened, tokens or usual_tokens(opened), allow_short, max_length, batch_size, chat_template)


def write_and_show(content: NeuronFile, out: Path) -> None:
    """Write a neuron file and print what is in it."""
    from lm_eval_amplify.neurons import write_neurons
    from lm_eval_amplify.neurons.show import describe

    write_neurons(content, out)
    typer.echo(describe(content))
    typer.echo(f"\nwritten to {out}")


def print_tables(tables: Sequence[Table]) -> None:
    """Print to stdout; letters that its encoding lacks come out as escapes, and what is no terminal is not cut."""
    from rich.console import Console

    from lm_eval_amplify.report.tables import for_terminal

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(highlight=False)
    Console(highlight=False, width=console.width if console.is_terminal else max(console.width, 160)).print(
        for_terminal(tables)
    )

"""What the demonstration prints: a table, what the model writes, and what to run next."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_eval_amplify.demo import BASES, MODEL, TARGETS, Outcome, Written
from lm_eval_amplify.languages import language_name


def show_outcome(outcome: Outcome, out: Path | None) -> None:
    """Print to stdout; letters that its encoding lacks come out as escapes."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # not where a test captures it
    console = Console(highlight=False)
    number = sum(len(own) for own in outcome.neurons.neurons.values())
    layers = outcome.neurons.manifest.num_layers
    console.print(
        f"\nFound {number} neurons of {len(outcome.neurons.languages)} languages in the {layers} layers of {MODEL}, "
        f"a model of 2.5 million parameters."
    )
    console.print(_table(outcome))
    console.print(
        "LSS: share of facts for which amplifying the neurons of a language makes the answer in that language likelier "
        "against the answer in the prompt's language. Compare with the random neurons, not with 0.5.\n"
        f"Prompts in {_names(BASES)}; neurons of {_names(TARGETS)}.\n"
    )
    for written in outcome.written:
        _show_text(console, written)
    console.print("\nNext, the same on the harness's own command line, for all languages (a few minutes):\n")
    console.print(
        f"  lm_eval --model amplified_hf --model_args neurons={MODEL},factor=1 --tasks amplify_lss --device cpu\n",
        soft_wrap=True,
    )
    if out is not None:
        console.print(f"Neuron files and the harness's results with samples are in {out}.", soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    table = Table(title="Language Steering Shift (LSS)")
    for name in ("operation", "statistic", "factor"):
        table.add_column(name)
    for name in ("language's neurons", "random neurons"):
        table.add_column(name, justify="right")
    for intervention, lss, lss_random in outcome.rows:
        statistic = "" if intervention.operation == "scale" else intervention.statistic
        table.add_row(intervention.operation, statistic, f"{intervention.factor:g}", f"{lss:.3f}", f"{lss_random:.3f}")
    return table


def _show_text(console: Console, written: Written) -> None:
    console.print(f"The model goes on from {written.prompt!r}:")
    for side, text in (
        ("unamplified", written.unamplified),
        (f"with the neurons of {language_name(written.target)}", written.amplified),
    ):
        in_a_line = " / ".join(line for line in f"{written.prompt}{text}".splitlines() if line.strip())
        console.print(Text(f"  {side}: {in_a_line}"), soft_wrap=True)


def _names(languages: tuple[str, ...]) -> str:
    *most, last = map(language_name, languages)
    return f"{', '.join(most)} and {last}"

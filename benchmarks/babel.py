"""Every figure of babel's model card, from the checkpoint and the corpus: ``python benchmarks/babel.py``.

About 20 minutes on two cores. ``--model DIR`` measures another checkpoint, one just trained say; ``--quick`` takes one
random seed and fewer sentences.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify import Amplifier, Intervention, NeuronFile, read_neurons
from lm_eval_amplify.babel.corpus import LANGUAGES, sentences
from lm_eval_amplify.demo import METHOD
from lm_eval_amplify.identify import Texts, identify, open_corpus, random_control
from lm_eval_amplify.identify.loading import Loaded, load_model
from lm_eval_amplify.neurons import locate_neurons, write_neurons
from lm_eval_amplify.steering import Steering, loglikelihoods
from lm_eval_amplify.tasks_support.babel_facts import babel_facts

TEXTS = Texts(open_corpus("babel"), 20_000, max_length=128, batch_size=32)
SEEDS = range(5)
INTERVENTIONS = (
    Intervention("set", 0.5, "max"),
    Intervention("set", 1.0, "max"),
    Intervention("set", 1.0, "p90"),
    Intervention("set", 1.0, "sentence_median"),
    Intervention("add", 0.5, "max"),
    Intervention("scale", 2.0),
    Intervention("scale", 5.0),
)


def find_neurons(loaded: Loaded) -> NeuronFile:
    """Return the neuron file that ships with the package, made anew."""
    return identify(*loaded, TEXTS, LANGUAGES, method=METHOD, model_name="babel")


def bits_per_byte(loaded: Loaded, texts: Sequence[str]) -> float:
    """Return the mean over bytes, each sentence after the token that ends a document."""
    end = loaded.tokenizer.eos_token
    total = sum(loglikelihoods(*loaded, [(end, text) for text in texts]))
    return -total / math.log(2) / sum(len(text.encode()) for text in texts)


def held_out(number: int) -> dict[str, list[str]]:
    """Return sentences of each language that the model was not trained on."""
    return {language: list(islice(sentences(language, "held_out"), number)) for language in LANGUAGES}


def matrix(
    loaded: Loaded, amplifier: Amplifier, texts: Mapping[str, Sequence[str]], before: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the change of bits per byte, [language amplified, language of the texts]."""
    rows = []
    for target in LANGUAGES:
        with amplifier.amplified(target):
            rows.append([bits_per_byte(loaded, texts[language]) - before[language] for language in LANGUAGES])
    return np.array(rows)


class Half:
    """LSS on one half of the facts: 0, that interventions are chosen by, or 1, that is reported."""

    def __init__(self, loaded: Loaded, half: int) -> None:
        every = [dict(one) for base in LANGUAGES for one in babel_facts(base, LANGUAGES)]
        keys = list(dict.fromkeys(one["fact"] for one in every))[half::2]
        self._steering = Steering(*loaded, [one for one in every if one["fact"] in keys])

    def lss(self, amplifier: Amplifier) -> float:
        """Return the mean LSS over all pairs of base and target language."""
        by_pair: dict[tuple[str, str], list[bool]] = {}
        documents: list[Any] = self._steering.documents
        for document, shifts in zip(documents, self._steering.shifts(amplifier), strict=True):
            for target, shift in shifts.items():
                if not math.isnan(shift):
                    by_pair.setdefault((document["base_language"], target), []).append(shift > 0)
        return float(np.mean([np.mean(steered) for steered in by_pair.values()]))


def named(intervention: Intervention) -> str:
    """Return an intervention in short."""
    statistic = "" if intervention.operation == "scale" else f" {intervention.statistic}"
    return f"{intervention.operation}{statistic} x {intervention.factor:g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="babel", help="checkpoint; by default the one that ships")
    parser.add_argument("--neurons", default=None, help="neuron file; by default the one that ships, for babel")
    parser.add_argument("--write-neurons", type=Path, default=None, help="write the neuron file here")
    parser.add_argument("--quick", action="store_true", help="one random seed, fewer sentences")
    arguments = parser.parse_args()
    loaded = load_model(arguments.model, device="cpu")
    if arguments.neurons is None and arguments.model == "babel" and arguments.write_neurons is None:
        arguments.neurons = "babel"
    neurons = read_neurons(locate_neurons(arguments.neurons)) if arguments.neurons else find_neurons(loaded)
    if arguments.write_neurons is not None:
        write_neurons(neurons, arguments.write_neurons)
    report(loaded, neurons, quick=arguments.quick)


def report(loaded: Loaded, neurons: NeuronFile, *, quick: bool) -> None:
    """Print every figure."""
    texts = held_out(40 if quick else 100)
    before = {language: bits_per_byte(loaded, texts[language]) for language in LANGUAGES}
    rows = [[one, len(neurons.neurons[one]), f"{before[one]:.3f}"] for one in LANGUAGES]
    print("\n## Held-out sentences\n")
    print(table(["language", "neurons", "bits per byte"], rows), flush=True)
    report_deactivation(loaded, neurons, texts, before)
    seeds = SEEDS[:1] if quick else SEEDS
    files = {"neurons": neurons} | {f"random {seed}": random_control(neurons, seed, *loaded, TEXTS) for seed in seeds}
    report_lss(loaded, files)
    report_harm(loaded, neurons, texts, before)


def report_deactivation(
    loaded: Loaded, neurons: NeuronFile, texts: Mapping[str, Sequence[str]], before: Mapping[str, float]
) -> None:
    """Print what the loss of each language's neurons does to every language."""
    off = matrix(loaded, Amplifier(loaded.model, neurons, Intervention("scale", 0.0)), texts, before)
    short = [language[:3] for language in LANGUAGES]
    own_worst = int((off.argmax(axis=1) == np.arange(len(off))).sum())
    own, others = off.diagonal().mean(), (off.sum() - off.trace()) / (off.size - len(off))
    print("\n## Deactivated (scale x 0): change of bits per byte in thousandths; rows: whose neurons\n")
    print(table(["", *short], [[one, *(f"{1000 * x:.0f}" for x in row)] for one, row in zip(short, off, strict=True)]))
    print(
        f"\nown language hurt most: {own_worst} of {len(off)}; mean change own {own:.4f}, others {others:.4f}",
        flush=True,
    )


def report_lss(loaded: Loaded, files: Mapping[str, NeuronFile]) -> None:
    """Print LSS by intervention on one half of the facts, and each file's best one on the other half."""
    half = Half(loaded, 0)
    found = {
        name: {one: half.lss(Amplifier(loaded.model, file, one)) for one in INTERVENTIONS}
        for name, file in files.items()
    }
    print("\n## LSS on the first half of the facts, mean over all pairs\n")
    rows = [[named(one), *(f"{of_file[one]:.3f}" for of_file in found.values())] for one in INTERVENTIONS]
    print(table(["intervention", *found], rows), flush=True)
    other_half = Half(loaded, 1)
    print("\n## The best intervention of each, on the other half\n")
    best = {name: max(of_file, key=lambda one: of_file[one]) for name, of_file in found.items()}
    lss = {name: other_half.lss(Amplifier(loaded.model, files[name], one)) for name, one in best.items()}
    print(
        table(["file", "intervention", "LSS"], [[name, named(best[name]), f"{lss[name]:.3f}"] for name in best]),
        flush=True,
    )


def report_harm(
    loaded: Loaded, neurons: NeuronFile, texts: Mapping[str, Sequence[str]], before: Mapping[str, float]
) -> None:
    """Print what each intervention costs the base languages."""
    few = {language: some[: len(some) // 4] for language, some in texts.items()}
    few_before = {language: bits_per_byte(loaded, few[language]) for language in LANGUAGES}
    rows = []
    for one in INTERVENTIONS:
        change = matrix(loaded, Amplifier(loaded.model, neurons, one), few, few_before)
        base = (change.sum() - change.trace()) / (change.size - len(change))
        rows.append([named(one), f"{base:+.3f}", f"{change.diagonal().mean():+.3f}"])
    mean = sum(before.values()) / len(before)
    print(f"\n## Change of bits per byte under amplification (unamplified {mean:.3f})\n")
    print(table(["intervention", "other languages", "the amplified one"], rows))


if __name__ == "__main__":
    main()

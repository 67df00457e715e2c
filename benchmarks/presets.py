"""LSS under every preset, with a language's neurons and with random ones: ``python benchmarks/presets.py``.

On babel and its facts, every pair of languages, or with ``--mlama DIR`` on real facts of a mirror. The presets at all
positions; below them the default and one preset at ``prompt`` and ``generated`` alone. Random neurons are as many in
the same layers, with their own statistics; the mean over the seeds, and the range. The unamplified side is scored once.
About ten seconds for each condition, file and six base languages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from babel import TEXTS, table

from lm_eval_amplify import Amplifier, Intervention, NeuronFile, Steering, make_intervention, read_neurons
from lm_eval_amplify.babel.corpus import LANGUAGES
from lm_eval_amplify.identify import random_control
from lm_eval_amplify.identify.loading import Loaded, load_model
from lm_eval_amplify.neurons import locate_neurons
from lm_eval_amplify.presets import PRESETS
from lm_eval_amplify.tasks_support.babel_facts import babel_facts
from lm_eval_amplify.tasks_support.fact_data import load_facts

MLAMA_CONFIGS = {
    "eng_Latn": "en", "est_Latn": "et", "fra_Latn": "fr", "ind_Latn": "id", "tam_Taml": "ta", "zho_Hans": "zh",
}  # fmt: skip
"""Of the base languages that are tried."""


def conditions() -> dict[str, Intervention]:
    presets = {name: make_intervention(preset=name) for name in PRESETS}
    default = {f"set max, {at}": make_intervention(positions=at) for at in ("all", "prompt", "generated")}
    median = {
        f"paper_p_median, {at}": make_intervention(preset="paper_p_median", positions=at)
        for at in ("prompt", "generated")
    }
    return presets | default | median


def lss_of_bases(steerings: Sequence[Steering], amplifier: Amplifier) -> float:
    """Return the mean over all pairs of base and target language."""
    return fmean(value for steering in steerings for value in steering.lss(amplifier).values() if value == value)


def documents(base: str, mlama: str | None, number: int) -> Iterable[Mapping[str, Any]]:
    if mlama is None:
        return babel_facts(base, LANGUAGES)
    hub_path, config = "inayarhmns/MLAMA-dod-185", MLAMA_CONFIGS[base]
    targets = list(MLAMA_CONFIGS)
    loaded = load_facts(
        hub_path=hub_path, hub_name=config, splits=["test"], base_language=base, data_dir=mlama, targets=targets
    )["test"]
    return loaded.select(range(min(number, len(loaded))))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="babel", help="checkpoint; by default the one that ships")
    options.add_argument("--neurons", default="babel", help="neuron file with statistics of sentences")
    options.add_argument("--seeds", type=int, default=3, help="random controls")
    options.add_argument("--bases", default="+".join(LANGUAGES), help="languages of the prompts, joined with +")
    options.add_argument("--mlama", metavar="DIR", help="mirror of the datasets: its mLAMA instead of babel's facts")
    options.add_argument("--facts", type=int, default=100, help="facts of mLAMA in each base language")
    given = options.parse_args()
    loaded: Loaded = load_model(given.model, device="cpu")
    own = read_neurons(locate_neurons(given.neurons))
    controls: list[NeuronFile] = [random_control(own, seed, *loaded, TEXTS) for seed in range(given.seeds)]
    steerings = [
        Steering(*loaded, [dict(one) for one in documents(base, given.mlama, given.facts)])
        for base in given.bases.split("+")
    ]
    rows = []
    for name, intervention in conditions().items():
        lss = lss_of_bases(steerings, Amplifier(loaded.model, own, intervention))
        random = [lss_of_bases(steerings, Amplifier(loaded.model, one, intervention)) for one in controls]
        spread = f"{fmean(random):.3f} ({min(random):.3f} to {max(random):.3f})" if random else ""
        rows.append(
            [name, intervention.operation, intervention.statistic, f"{intervention.factor:g}", f"{lss:.3f}", spread]
        )
        print(*rows[-1], sep="  ", flush=True)
    print("\n" + table(["condition", "operation", "statistic", "factor", "LSS", "random neurons"], rows))


if __name__ == "__main__":
    main()

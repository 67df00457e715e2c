"""The embedded model still gets the results that it got, and a change that matters is seen."""

from __future__ import annotations

import numpy as np
import pytest
from golden import FILE, evaluate, write

from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile, read_neurons, write_neurons
from lm_eval_amplify.neurons.locate import locate_neurons
from lm_eval_amplify.report.comparing import Rules, compare
from lm_eval_amplify.report.comparison_page import in_words
from lm_eval_amplify.report.tolerance import Tolerance

SAME = Rules(fail_on="change", tolerance=Tolerance.parse(["1e-3"]))
# A word that is as likely as another one may be written on another machine.
SAME_TEXTS = Rules(fail_on="change", tolerance=Tolerance.parse(["0.2"]))
ROUNDING = Rules(fail_on="change", tolerance=Tolerance.parse(["1e-4"]))
ONE = {"amplify_lss_eng_Latn": 10}


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """What the embedded model gets now."""
    return write(evaluate(), tmp_path_factory.mktemp("again") / "babel.json")


@pytest.fixture
def one(tmp_path):
    """Runs one of the tasks in another way."""
    return lambda **options: write(evaluate(ONE, **options), tmp_path / "one.json")


@pytest.mark.parametrize(
    ("tasks", "rules"),
    [
        (["amplify_lss", "amplify_lss_???_*"], SAME),
        (["amplify_babel_ppl*"], Rules(fail_on="change", tolerance=Tolerance.parse(["1e-3", "word_perplexity*=1%"]))),
        (["amplify_lss_langid*"], SAME_TEXTS),
    ],
)
def test_every_task_without_data_from_elsewhere_gives_its_golden_results(again, tasks, rules):
    comparison = compare(FILE, again, rules, tasks=tasks)
    assert len({one.row.task for one in comparison.compared}) == 19  # with the group
    found = [f"{one.row.task} {one.row.name}: {in_words(one)}" for one in comparison.compared if one.verdict != "same"]
    assert comparison.exit_status == 0, "\n".join([*found, "if this is meant: python tests/golden.py"])


def test_another_batch_size_changes_nothing(again, one):
    assert compare(again, one(batch_size=7), ROUNDING, tasks=list(ONE)).exit_status == 0


def test_another_factor_is_caught(again, one):
    changed = one(factor=0.3)
    assert compare(again, changed, ROUNDING, tasks=list(ONE)).exit_status == 1
    comparison = compare(again, changed, tasks=list(ONE), metrics=["shift"])
    assert [found.verdict for found in comparison.compared] == ["regression"]
    assert comparison.settings["amplify.factor"] == ("1.0", "0.3")


def test_a_neuron_that_went_missing_is_caught(again, one, tmp_path):
    babel = read_neurons(locate_neurons("babel"))
    own = babel.neurons["rus_Cyrl"]
    keep = np.arange(len(own.layer)) != int(np.argmax(own.statistics["max"]))
    without = LanguageNeurons(own.layer[keep], own.index[keep], {name: s[keep] for name, s in own.statistics.items()})
    write_neurons(NeuronFile(babel.manifest, babel.neurons | {"rus_Cyrl": without}), tmp_path / "n.safetensors")
    comparison = compare(again, one(neurons=str(tmp_path / "n.safetensors")), ROUNDING, tasks=list(ONE))
    assert comparison.exit_status == 1
    assert {found.row.name for found in comparison.compared if found.is_failure} >= {"shift_rus_Cyrl", "shift"}
    assert "amplify.neurons" in comparison.settings

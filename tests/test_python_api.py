"""Amplification from Python: the examples of the documentation run, and need no harness."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import tiny
import torch
from conftest import REPOSITORY
from test_amplifier import assert_untouched, bits, logits

from lm_eval_amplify import Amplifier, Intervention, amplify, identify_language, write_neurons
from lm_eval_amplify.errors import AmplifyError, LanguageError, NeuronFileError
from lm_eval_amplify.presets import PRESETS

EXAMPLES = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "python.md").read_text(), re.DOTALL)


def test_every_example_of_the_documentation_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 8
    names: dict = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/python.md", "exec"), names)
    assert set(names["written"]) == {(f, one) for f in (0.25, 0.5) for one in ("ind_Latn", "rus_Cyrl")}
    assert len(set(names["written"].values())) > 1
    assert names["found"].languages == ("eng_Latn", "ind_Latn", "rus_Cyrl")
    assert (tmp_path / "babel.neurons.safetensors").is_file()
    assert names["by_target"] == names["by_factor"][0.5]
    assert names["by_target"].keys() == {"ind_Latn", "rus_Cyrl"}


def test_the_first_of_them_imports_neither_the_harness_nor_datasets():
    script = f"{EXAMPLES[0]}\nimport sys; print({{'lm_eval', 'datasets'}} & set(sys.modules))"
    environment = os.environ | {"LM_EVAL_AMPLIFY_AUTOLOAD": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY
    )
    assert done.stdout.strip().endswith("set()"), done.stdout + done.stderr


def test_amplify_is_the_amplifier_with_the_same_arguments(tmp_path):
    model, content = tiny.model("qwen2"), tiny.neurons("qwen2")
    path = tmp_path / "n.safetensors"
    write_neurons(content, path)
    intervention = Intervention("add", 5, "sentence_median", "scale", 0.5, "0-1")
    with Amplifier(model, content, intervention).amplified("ind_Latn", "est_Latn"):
        expected = logits(model)
    before = bits(model)
    arguments = {
        "operation": "add", "factor": 5, "statistic": "sentence_median", "others_operation": "scale",
        "others_factor": 0.5, "layers": "0-1",
    }  # fmt: skip
    for file, language in (
        (content, ["Indonesian", "et"]),
        (path, "ind_Latn+est_Latn"),
        (str(path), ("id", "est_Latn")),
    ):
        with amplify(model, file, language=language, **arguments) as amplifier:
            assert torch.equal(logits(model), expected)
            assert amplifier.intervention == intervention
        assert_untouched(model, before)
    with amplify(model, content, language="ind_Latn", operation="scale", factor=2, mode="fold") as amplifier:
        assert amplifier.mode == "fold"
        assert not torch.equal(logits(model), expected)
    assert_untouched(model, before)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_survives_an_exception(error):
    model = tiny.model("llama")
    before = bits(model)
    for arguments in ({}, {"operation": "scale", "factor": 3}):
        with pytest.raises(error), amplify(model, tiny.neurons("llama"), language="ind_Latn", **arguments):
            raise error
        assert_untouched(model, before)


@pytest.mark.parametrize(
    ("given", "kind", "line"),
    [
        ({"neurons": "nowhere"}, NeuronFileError, "no neuron file 'nowhere'"),
        ({"language": "fr"}, LanguageError, "no language 'fra_Latn'"),
        ({"preset": "paper_mx"}, AmplifyError, "did you mean 'paper_max'"),
        ({"positions": "prompts"}, AmplifyError, "did you mean 'prompt'"),
        ({"operation": "sett"}, AmplifyError, r"operation=sett \(did you mean 'set'\?\)"),
        ({"preset": "paper_p_max"}, AmplifyError, "no statistic 'sentence_max'"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(given, kind, line):
    model = tiny.model("llama")
    before = bits(model)
    arguments = {"neurons": tiny.neurons("llama"), "language": "ind_Latn"} | given
    with pytest.raises(kind, match=line) as raised, amplify(model, arguments.pop("neurons"), **arguments):
        pass
    assert "\n" not in str(raised.value)
    assert_untouched(model, before)


def test_every_preset_is_in_the_documentation_with_its_parts():
    page = (REPOSITORY / "docs" / "presets.md").read_text()
    for name, preset in PRESETS.items():
        assert f"| `{name}` | `{preset.operation}` | `{preset.statistic}` | {preset.factor:g} |" in page


def test_a_text_without_a_language_has_none():
    assert identify_language("Потом долго шёл дождь, и дети сидели дома возле окна.").language == "rus_Cyrl"
    assert identify_language("12 34 --- 56") is None


@pytest.mark.parametrize(
    "arguments", [{"positions": "prompt"}, {"positions": "generated", "factor": 2}, {"preset": "paper_10p"}], ids=str
)
def test_steering_scores_at_positions_like_the_harness(arguments):
    from lm_eval.api.instance import Instance

    from lm_eval_amplify.models.hf import AmplifiedHFLM
    from lm_eval_amplify.presets import make_intervention
    from lm_eval_amplify.steering import loglikelihoods

    model, content, tokenizer = tiny.model("qwen2"), tiny.neurons("qwen2"), tiny.tokenizer()
    pairs = [("Hujan turun", " deras"), ("Mees", " avas kraani"), ("Mwanamume alifungua", " bomba kwa hiyo")]
    lm = AmplifiedHFLM(model, tokenizer=tokenizer, neurons=content, language="ind_Latn", batch_size=2, **arguments)
    made = [Instance("loglikelihood", {}, pair, 0, ("t", 0, 1)) for pair in pairs]
    expected = [value for value, _ in lm.loglikelihood(made, disable_tqdm=True)]
    amplifier = Amplifier(model, content, make_intervention(**arguments))
    with amplifier.amplified("ind_Latn"):
        found = loglikelihoods(model, tokenizer, pairs, 2, amplifier)
    assert found == pytest.approx(expected, abs=2e-4)

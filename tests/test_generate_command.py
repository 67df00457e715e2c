"""``lm-eval-amplify generate``: what it prints, and the mistakes that it explains."""

from __future__ import annotations

import pytest
import tiny
from positions_by_hand import ByHand
from test_command_lines import ours

from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import read_neurons
from lm_eval_amplify.presets import make_intervention

PROMPT = "Hujan turun dengan deras"


@pytest.fixture
def generate(monkeypatch, capsys, saved, neuron_path):
    """Run it on tiny Qwen2; returns (exit status, stdout, stderr)."""

    def run(*arguments, model="saved", neurons="own", lid="none"):
        given = ["--neurons", neuron_path("qwen2") if neurons == "own" else neurons]
        given += ["--model", saved("qwen2")] if model == "saved" else []
        return ours(monkeypatch, capsys, "generate", *given, "--lid", lid, "--device", "cpu", *arguments)

    return run


def by_hand(intervention, tokens=6):
    """The prompt and what is written after it."""
    tokenizer = tiny.tokenizer()
    prompt = tokenizer(PROMPT)["input_ids"]
    written = ByHand(tiny.model("qwen2"), tiny.neurons("qwen2"), intervention).greedy(prompt, tokens, end=0)
    text = tokenizer.decode(written, skip_special_tokens=True)
    return f"{PROMPT}{' '.join(text.split(chr(10)))}"


def test_it_writes_unamplified_and_with_each_factor(generate):
    status, out, err = generate("--language", "id", "--factor", 1, "--factor", -2.5, "--max-new-tokens", 6, PROMPT)
    assert status == 0, err
    interventions = (Intervention("scale", 1), Intervention(factor=1), Intervention(factor=-2.5))
    names = ("unamplified", "set max x 1", "set max x -2.5")
    lines = [f"{name:<14}  {by_hand(one)}" for name, one in zip(names, interventions, strict=True)]
    assert out.splitlines() == "\n".join(lines).splitlines()
    assert len({line[16:] for line in lines}) == 3


def test_presets_and_positions(generate):
    options = ("--language", "id", "--preset", "paper_10p", "--preset", "paper_max", "--positions", "generated")
    status, out, _ = generate(*options, "--max-new-tokens", 6, PROMPT)
    assert status == 0
    for preset, name in (("paper_10p", "set batch_p10 x 1"), ("paper_max", "set running_max x 1")):
        expected = by_hand(make_intervention(preset=preset, positions="generated"))
        assert f"{name:<19}  {expected}" in out


def test_babel_writes_without_a_network_and_its_languages_are_identified(generate):
    status, out, err = generate(
        "--language", "Russian", "--factor", 0.25, "The colour of snow is", neurons="babel", model=None, lid="lid.176"
    )
    assert status == 0, err
    unamplified, first, amplified, second = out.splitlines()
    assert unamplified.startswith("unamplified     The colour of snow is")
    assert amplified.startswith("set max x 0.25  The colour of snow is")
    assert all(line.strip()[0] == "[" and line.strip()[-1] == "]" for line in (first, second))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "fr", PROMPT], "no language 'fra_Latn'"),
        (["--language", "id", "--factor", "nan", PROMPT], "factor=nan: expected a finite number"),
        (["--language", "id", "--operation", "ad", PROMPT], "operation=ad (did you mean 'add'?)"),
        (["--language", "id", "--preset", "paper_max", "--factor", 2, PROMPT], "leave factor out"),
        (["--language", "id", "--statistic", "p90", PROMPT], "no statistic 'p90'"),
        (["--language", "id", "--positions", "first", PROMPT], "positions=first: expected all, prompt, generated"),
        (["--language", "id", ""], "the prompt has no token"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(generate, arguments, message):
    status, out, err = generate(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_that_names_no_model_needs_one(generate, neuron_path):
    assert read_neurons(neuron_path("qwen2")).manifest.model is None
    status, _, err = generate("--language", "id", PROMPT, model=None)
    assert status == 2
    assert "give --model <name>: the neuron file names no model" in err
    status, _, err = generate("--language", "id", PROMPT, lid="lid.177")
    assert status == 2
    assert "no language identifier 'lid.177' (did you mean 'lid.176'?)" in err

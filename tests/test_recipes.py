"""The studies that ship with the package: each is planned on a tiny model of its architecture."""

from __future__ import annotations

import json
import re

import pytest
import tiny
import toy_benchmarks
import toy_tasks
import yaml
from typer.testing import CliRunner

from lm_eval_amplify.cli import app
from lm_eval_amplify.languages import PAPER_LANGUAGES
from lm_eval_amplify.resources import recipes_folder
from lm_eval_amplify.sweep import estimate

FAMILIES = {"qwen2.5": "qwen2", "seallms3": "qwen2", "gemma2": "gemma2"}
PAPER = sorted(path.stem for path in recipes_folder().glob("paper-*.yaml"))
MODELS = {
    "paper-qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "paper-qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "paper-gemma2-2b": "google/gemma-2-2b-it",
    "paper-gemma2-9b": "google/gemma-2-9b-it",
    "paper-seallms3-1.5b": "SeaLLMs/SeaLLMs-v3-1.5B-Chat",
    "paper-seallms3-7b": "SeaLLMs/SeaLLMs-v3-7B-Chat",
}
_MLAMA = ("en", "nl", "id", "ms", "vi", "ja", "zh", "fr", "pt", "ru", "et", "it", "ta", "th", "tr")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few rows of every dataset that the paper's studies read."""
    folder = toy_benchmarks.write_mirror(toy_tasks.write_mirror(tmp_path_factory.mktemp("data")))
    for code in PAPER_LANGUAGES:
        rows = toy_benchmarks.flores_rows(code if code in toy_benchmarks.FLORES else "ind_Latn")
        toy_benchmarks.write_split(folder / "facebook/flores" / code, rows, "devtest")
    for code in _MLAMA:
        row = {"predicate_id": "P36", "language": code, "template": "[X] - [Y].", "sub_label": "A", "obj_label": "B"}
        row |= {f"{part}_{other}": f"{part} {other}" for other in _MLAMA for part in ("sub", "obj")}
        toy_benchmarks.write_split(folder / "inayarhmns/MLAMA-dod-185" / code, [row, row | {"sub_label": "C"}])
    return folder


@pytest.fixture(autouse=True)
def short_probes(monkeypatch):
    monkeypatch.setattr(estimate, "_LONG_ENOUGH", 0.01)


def dry_run(name: str, *changes: str) -> str:
    arguments = [part for change in changes for part in ("--set", change)]
    done = CliRunner().invoke(app, ["sweep", name, "--dry-run", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_there_is_one_for_each_model_of_the_paper():
    found = {name: yaml.safe_load((recipes_folder() / f"{name}.yaml").read_text())["model"] for name in PAPER}
    assert {name: model["pretrained"] for name, model in found.items()} == MODELS


@pytest.mark.parametrize("name", PAPER)
def test_a_study_of_the_paper_is_planned_on_a_tiny_model_of_the_architecture(name, saved, data):
    family = FAMILIES[name.split("-")[1]]
    said = dry_run(
        name,
        f"model={json.dumps({'pretrained': str(saved(family)), 'batch_size': 4, 'device': 'cpu'})}",
        f"metadata.data_dir={data}",
    )
    assert "18 target languages" in said
    assert "9 conditions" in said
    units = {match[1]: int(match[2]) for match in re.finditer(r"^(?:sweep|then) +(\w+) +(\d+) ", said, re.MULTILINE)}
    conditions, controls = 9, 4  # with the languages' neurons, and with three seeds of random ones
    assert units["amplify_lss_mlama"] == conditions * controls
    # Unamplified and for each of 18 targets under `then`, whose row comes last; there one seed.
    assert units["amplify_xcopa"] == units["amplify_flores_ppl"] == 1 + 18 * 2
    assert units["amplify_lss_langid_flores"] == 18 * 2
    assert re.search(r"^in all +\d+ +[\d,]+ +\d", said, re.MULTILINE)


def test_babel_is_planned_offline():
    said = dry_run("babel")
    assert "study babel: babel" in said
    assert re.search(r"^sweep +amplify_lss +40 ", said, re.MULTILINE)


def test_an_unknown_study_is_named_with_those_that_there_are():
    done = CliRunner().invoke(app, ["sweep", "babble", "--dry-run"])
    assert "no study 'babble' (did you mean 'babel'?): give a file, or one of babel, paper-" in str(done.exception)


def test_the_tiny_models_are_of_the_architectures():
    assert type(tiny.model("gemma2")).__name__ == "Gemma2ForCausalLM"
    assert type(tiny.model("qwen2")).__name__ == "Qwen2ForCausalLM"

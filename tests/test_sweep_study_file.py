"""A study's file: what is wrong in it is said with the key, the line and what may be there, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import studies
import yaml

from lm_eval_amplify.errors import AmplifyError, StudyError
from lm_eval_amplify.sweep.prepare import prepare
from lm_eval_amplify.sweep.study_file import read_study_file

TEXT = """\
model:
  pretrained: babel
neurons: babel
languages: [ind_Latn, Estonian]
interventions:
  - statistic: [max, sentence_median]
    factor: [0.5, 1]
  - preset: paper_p_max
  - operation: scale
    factor: 2
tasks:
  - amplify_lss
  - {task: amplify_babel_ppl, amplify: cross, limit: 5}
choose:
  metric: lss
  task: amplify_lss
  limit: {bits_per_byte: 1.2}
then:
  tasks: amplify_xcopa
"""


def read(tmp_path: Path, text: str = TEXT, *changes: str):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return read_study_file(path, changes)


def test_values_that_stand_alone_are_lists_of_one_and_defaults_are_filled_in(tmp_path):
    study = read(tmp_path).study
    assert study.languages == ["ind_Latn", "est_Latn"]
    assert [one.task for one in study.tasks] == ["amplify_lss", "amplify_babel_ppl"]
    assert [one.task for one in study.then.tasks] == ["amplify_xcopa"]
    assert study.choose.limit["bits_per_byte"].ratio == 1.2
    assert study.controls.unamplified
    labels = [one.label for grid in study.interventions for one in grid.conditions(4)]
    assert labels == [
        *("set max x 0.5", "set max x 1", "set sentence_median x 0.5", "set sentence_median x 1"),
        *("paper_p_max", "scale x 2"),
    ]


def test_entries_can_be_set_on_the_command_line(tmp_path):
    study = read(tmp_path, TEXT, "model.pretrained=gpt2", "limit=3", "controls.random=[0, 1]").study
    assert study.model == {"pretrained": "gpt2"}
    assert study.limit == 3
    assert study.controls.random == [0, 1]


@pytest.mark.parametrize("change", ["limit", "=3", "model.=3", "neurons.name=3", "limit=["])
def test_a_malformed_change_is_named(tmp_path, change):
    with pytest.raises(StudyError, match="^--set "):
        read(tmp_path, TEXT, change)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (
            "statistic: [max",
            "statistik: [max",
            6,
            "[0].statistik: unknown key (did you mean 'statistic'?)",
        ),
        ("operation: scale", "operation: scal", 9, "'scal' (did you mean 'scale'?): expected set, add, scale"),
        ("Estonian", "Estonain", 4, "languages[1]: unknown language 'Estonain' (did you mean 'Estonian'?)"),
        ("factor: 2", "factor: two", 10, "interventions[2].factor: 'two': input should be a valid number"),
        ("factor: 2", "factor: .inf", 10, "interventions[2].factor: inf: input should be a finite number"),
        ("factor: 2", "layers: 5-2", 9, "interventions[2]: layers=5-2: expected 'all' or layers and ranges"),
        ("tasks:\n  - amplify_lss", "task:\n  - amplify_lss", 11, "task: unknown key (did you mean 'tasks'?)"),
        ("paper_p_max", "paper_pmax", 8, "preset 'paper_pmax' (did you mean 'paper_p_max'"),
        ("preset: paper_p_max", "preset: paper_p_max\n    factor: 3", 8, "preset stands for operation, statistic"),
        ("bits_per_byte: 1.2", "bits_per_byte: much", 17, "'much': expected a ratio to the unamplified model"),
        ("bits_per_byte: 1.2", "bits_per_byte: {ratoi: 1}", 17, "unknown key (did you mean 'ratio'?): expected ratio"),
        ("bits_per_byte: 1.2", "bits_per_byte: 0", 17, "input should be greater than 0"),
        ("  metric: lss", "  metric: lss\n  split: third", 16, "choose.split: 'third': expected half, none"),
        (
            "amplify: cross",
            "amplify: croos",
            13,
            "tasks[1].amplify: 'croos' (did you mean 'cross'?): expected self",
        ),
        ("limit: 5", "limit: -5", 13, "tasks[1].limit: -5: input should be greater than 0"),
        ("  pretrained: babel", "  pretrained: babel\n  factor: 3", 3, "model.factor: the study varies it"),
        ("neurons: babel", "", 1, "give one of neurons (a file, or its name) and identify"),
        ("model:", "languages: est_Latn\nmodel:", 5, "languages: the key is there already, in line 1"),
        ("  task: amplify_lss", "", 14, "choose: the key 'task' is missing"),
        ("  - operation: scale", "  - 3\n  - operation: scale", 9, "3: expected keys, of operation, statistic, factor"),
        ("tasks:\n  - amp", "tasks: [\n  - amp", 12, "no valid YAML"),
    ],
)
def test_a_mistake_is_said_with_its_key_its_line_and_what_may_be_there(tmp_path, old, new, line, message):
    assert TEXT.count(old) == 1
    with pytest.raises(StudyError) as caught:
        read(tmp_path, TEXT.replace(old, new))
    said = str(caught.value)
    assert message in said
    assert f"study.yaml, line {line}" in said
    assert "\n" not in said


@pytest.mark.parametrize("text", ["", "- a list", "just text"])
def test_a_file_that_is_something_else_is_refused(tmp_path, text):
    with pytest.raises(StudyError, match="expected keys such as model"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere.yaml: cannot be read: No such file"):
        read_study_file(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["amplify_lsss"]}, "line 20, tasks[0]: unknown task 'amplify_lsss' (did you mean 'amplify_lss'"),
        ({"tasks": ["amplify_lss", "amplify_lss"]}, "tasks[1]: task amplify_lss is there twice"),
        ({"languages": ["est_Latn", "rus_Cyrl"]}, "languages[1]: "),
        ({"neurons": "nowhere.safetensors"}, "neurons: no neuron file 'nowhere.safetensors'"),
        ({"interventions": [{"statistic": "p90"}]}, "interventions[0]: the neuron file has no statistic 'p90'"),
        ({"interventions": [{"layers": 7}]}, "interventions[0]: layers=7: layer 7 is out of range"),
        ({"model": {"pretrained": "/nowhere"}}, "model: cannot load '/nowhere'"),
        ({"choose": {"task": "amplify_xcopa"}}, "choose.task: 'amplify_xcopa': expected one of the study's tasks"),
        ({"choose": {"task": "amplify_lss", "metric": "acc"}}, "choose.metric: amplify_lss has no metric 'acc'"),
        (
            {"choose": {"task": "amplify_lss", "limit": {"perplexity": 2}}},
            "choose.limit.perplexity: no task of the study that runs amplified and unamplified reports perplexity",
        ),
        ({"tasks": ["amplify_lss", "amplify_lss_ind_*"], "limit": 2}, None),
        (
            {"choose": {"task": "amplify_lss", "limit": {"shift": 2}}},
            "choose.limit.shift: no task of the study that runs amplified and unamplified reports shift",
        ),
        (
            {"choose": {"task": "amplify_babel_ppl", "metric": "bits_per_byte"}},
            "choose.metric: bits_per_byte of amplify_babel_ppl is no mean over documents",
        ),
        ({"tasks": ["amplify_xcopa_*"], "bases": ["rus_Cyrl"]}, "tasks[0]: amplify_xcopa_* has no task in rus_Cyrl"),
        ({"tasks": ["amplify_xcopa"], "bases": ["hat_Latn"]}, "tasks[0]: amplify_xcopa has no task in a target lang"),
        ({"tasks": [{"task": "amplify_xcopa", "num_fewshot": 50}]}, "tasks[0]: the requests of amplify_xcopa cannot"),
        ({"model": {"pretrained": "babel", "dtype": "floaty"}, "neurons": "babel"}, "model: cannot load 'babel'"),
        ({"model": {"pretrained": "babel", "mode": "fold"}}, "model.mode: a study folds where that is exact"),
        (
            {"model": {"pretrained": "babel"}, "neurons": "babel", "apply_chat_template": True},
            "tasks[0]: the requests of amplify_lss cannot be built",
        ),
        ({"seed": -1}, "seed: -1: input should be greater than or equal to 0"),
        ({"limit": float("inf")}, "limit: inf: input should be a finite number"),
        ({"then": {"tasks": ["amplify_nothing"]}}, "then.tasks[0]: unknown task 'amplify_nothing'"),
        ({"bases": ["rus_Cyrl"], "tasks": ["amplify_xcopa"]}, "tasks[0]: amplify_xcopa has no task in rus_Cyrl"),
    ],
)
def test_what_does_not_fit_the_model_the_neurons_or_the_tasks_is_said_before_anything_runs(
    tmp_path, saved, neuron_path, mirror, changes, message
):
    if "tasks" in changes and "choose" not in changes:
        changes = {**changes, "choose": None, "then": None}
    content = studies.content(saved("qwen2"), neuron_path("qwen2"), mirror) | changes
    content = {key: value for key, value in content.items() if value is not None}
    path = studies.write(tmp_path / "study.yaml", content)
    if message is None:  # of a pattern what is in none of the languages is left out
        assert len(prepare(read_study_file(path)).suites) > 1
        return
    with pytest.raises(AmplifyError) as caught:
        prepare(read_study_file(path))
    said = str(caught.value)
    if message.startswith("line"):
        line = 1 + path.read_text().splitlines().index("- amplify_lsss")
        message = message.replace("line 20", f"line {line}")
    assert message in said
    assert "study.yaml, line " in said
    assert not list(tmp_path.glob("*/*"))


def test_the_files_of_the_documentation_are_valid(tmp_path):
    from conftest import REPOSITORY

    blocks = (REPOSITORY / "docs/studies.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        content = block.split("```")[0]
        whole = yaml.safe_load(content)
        if "model" in whole:
            read(tmp_path, content)

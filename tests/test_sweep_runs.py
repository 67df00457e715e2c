"""A study run for real: its numbers are the harness's, it goes on after any stop, and what is stale runs again."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import studies
import tiny
from harness_runs import evaluator

from lm_eval_amplify import write_neurons
from lm_eval_amplify.errors import StudyError
from lm_eval_amplify.report.leaderboard import boards_of, read_rows
from lm_eval_amplify.sweep.folder import StudyFolder
from lm_eval_amplify.sweep.prepare import prepare
from lm_eval_amplify.sweep.run import run_study
from lm_eval_amplify.sweep.store import Unit, read_study

CONDITION = "set-max-1.0"


@pytest.fixture(scope="module")
def study(tmp_path_factory, saved, neuron_path, mirror):
    content = studies.content(saved("qwen2"), neuron_path("qwen2"), mirror)
    return studies.read(tmp_path_factory.mktemp("study") / "small.yaml", content)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, study):
    """The study's folder, run without a stop."""
    out = tmp_path_factory.mktemp("whole") / "out"
    finished = studies.run(study, out)
    return out, finished


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def samples(folder: Path, task: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"samples_{task}.jsonl").read_text().splitlines()]


def test_every_unit_of_the_plan_is_there_and_read_again(whole):
    out, finished = whole
    stored = read_study(out)
    # LSS: two conditions, each with a control. Perplexity: unamplified, and the conditions for three targets.
    sweep = 4 + 1 + 6
    then = 1 + len([one for one in finished.chosen["languages"].values() if one["condition"]])
    assert len(stored.units) == finished.ran == sweep + then
    assert not stored.missing
    assert stored.record["chosen"] == finished.chosen
    assert stored.record["tasks"]["amplify_lss"]["leaves"] == {f"amplify_lss_{one}": one for one in studies.LANGUAGES}


def test_a_unit_has_the_numbers_of_a_run_of_its_own(whole, saved, neuron_path, mirror):
    """Through ``simple_evaluate`` with a model of its own: both sides, the language of each task, one for all."""
    out, finished = whole
    targets = "+".join(studies.LANGUAGES)
    chosen = next(code for code, one in finished.chosen["languages"].items() if one["condition"])
    factor = finished.chosen["languages"][chosen]["condition"]["intervention"]["factor"]
    for path, language, of_run, tasks, limit in [
        ("sweep/amplify_lss/set-max-0.5", "task", 0.5, [f"amplify_lss_{one}" for one in studies.LANGUAGES], 4),
        ("sweep/amplify_babel_ppl/set-max-0.5.zho_Hans", "zho_Hans", 0.5, ["amplify_babel_ppl_ind_Latn"], 3),
        (f"then/amplify_xcopa/set-max-{factor}.{chosen}", chosen, factor, ["amplify_xcopa_est_Latn"], 4),
        ("then/amplify_xcopa/unamplified", None, 1, ["amplify_xcopa_ind_Latn"], 4),
    ]:
        own = {"pretrained": str(saved("qwen2"))}
        own |= {"neurons": str(neuron_path("qwen2")), "language": language, "factor": of_run} if language else {}
        alone = evaluator(mirror, targets=targets)("amplified_hf", own, tasks, limit=limit)
        mine = results(out / path)
        for task in tasks:
            values = {name: one for name, one in alone["results"][task].items() if isinstance(one, float)}
            # Without resamples there is no standard error; of means the study has it.
            found = {name: mine["results"][task][name] for name in values}
            assert found == pytest.approx(values, rel=1e-4, abs=1e-4, nan_ok=True)
            hashes = [one["doc_hash"] for one in alone["samples"][task]]
            assert [one["doc_hash"] for one in samples(out / path, task)] == hashes
        assert mine["config"]["amplify"] == alone["config"]["amplify"]


def test_a_group_of_some_languages_has_their_mean_alone(whole):
    out, _ = whole
    found = results(out / "sweep/amplify_lss" / CONDITION)
    assert found["group_subtasks"] == {"amplify_lss": [f"amplify_lss_{one}" for one in found_languages(found)]}
    values = [found["results"][f"amplify_lss_{one}"]["lss,none"] for one in studies.LANGUAGES]
    assert found["results"]["amplify_lss"]["lss,none"] == pytest.approx(sum(values) / 3)


def found_languages(found: dict) -> list[str]:
    return [name.removeprefix("amplify_lss_") for name in found["group_subtasks"]["amplify_lss"]]


def test_the_leaderboard_ranks_the_units(whole):
    out, _ = whole
    boards = {board.group: board for board in boards_of(read_rows([out]).rows, tasks=["amplify_lss"])}
    conditions = [place.entrant.condition for place in boards["amplify_lss"].places]
    assert len(conditions) == 4
    assert sum("random-0" in one for one in conditions) == 2


def test_a_finished_study_runs_nothing_again(whole, study):
    out, finished = whole
    before = studies.stored(out)
    again = studies.run(study, out)
    assert (again.ran, again.kept) == (0, finished.ran)
    assert again.chosen == finished.chosen
    assert studies.stored(out) == before


@pytest.mark.parametrize("seed", range(2))
def test_a_study_killed_at_any_moment_goes_on_to_the_same(tmp_path, whole, study, seed):
    """kill -9, ten times; then it runs to the end, and everything is as it is without."""
    out = tmp_path / "out"
    draw = random.Random(seed)
    done = 0
    for _ in range(10):
        process = multiprocessing.get_context("fork").Process(target=studies.run, args=(study, out))
        process.start()
        until = done + draw.randint(0, 4)
        while process.is_alive() and len(list(out.glob("*/*/*/unit.json"))) < until:
            time.sleep(0.01)
        time.sleep(draw.random() / 4)
        process.kill()
        process.join()
        now = len(list(out.glob("*/*/*/unit.json")))
        assert now >= done  # what was finished stays
        done = now
    studies.run(study, out)
    assert studies.stored(out) == studies.stored(whole[0])


def test_only_what_is_new_runs_when_a_condition_is_added(tmp_path, saved, neuron_path, mirror):
    small = studies.content(saved("qwen2"), neuron_path("qwen2"), mirror, tasks=["amplify_lss"], choose=None, then=None)
    path = tmp_path / "grows.yaml"
    assert studies.run(studies.read(path, small), tmp_path / "out").ran == 4
    small["interventions"] = [{"statistic": "max", "factor": [1, 2]}]
    finished = studies.run(studies.read(path, small), tmp_path / "out")
    assert (finished.ran, finished.kept) == (2, 2)
    assert not (tmp_path / "out/sweep/amplify_lss/set-max-0.5").exists()
    assert len(list((tmp_path / "out/aside").iterdir())) == 2  # kept, but no results of this study
    assert {Path(row.file).parent.name for row in read_rows([tmp_path / "out"]).rows} == {
        *("set-max-1.0", "set-max-2.0"),
        *("set-max-1.0.random-0", "set-max-2.0.random-0"),
    }


def test_what_another_neuron_file_or_more_documents_made_stale_runs_again(tmp_path, saved, mirror):
    neurons = tmp_path / "n.safetensors"
    write_neurons(tiny.neurons("qwen2"), neurons)
    content = studies.content(saved("qwen2"), neurons, mirror, choose=None, then=None, controls=None)
    path = tmp_path / "stale.yaml"
    assert studies.run(studies.read(path, content), tmp_path / "out").ran == 5
    write_neurons(tiny.neurons("qwen2", seed=1), neurons)
    finished = studies.run(studies.read(path, content), tmp_path / "out")
    assert (finished.ran, finished.kept) == (4, 1)  # the unamplified perplexity has no neurons
    content["limit"] = 5
    finished = studies.run(studies.read(path, content), tmp_path / "out")
    assert (finished.ran, finished.kept) == (2, 3)  # the perplexity has a limit of its own
    assert {one.content["config"]["amplify"].get("neurons") for one in read_study(tmp_path / "out").units.values()} == {
        None,
        f"sha256:{neuron_hash(neurons)}",
    }


def neuron_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["results.json", "unit.json", "samples_amplify_lss_ind_Latn.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "missing", "other"])
def test_a_damaged_file_is_named_moved_aside_and_its_unit_runs_again(tmp_path, whole, study, caplog, name, damage):
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    file = out / "sweep/amplify_lss" / CONDITION / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"1", b"2"))
    finished = studies.run(study, out)
    assert finished.ran == 1
    assert f"sweep/amplify_lss/{CONDITION}: " in caplog.text
    assert "moved aside" in caplog.text
    assert studies.stored(out) == studies.stored(whole[0])
    assert len(read_rows([out]).faults) == 0


def test_a_damaged_record_is_moved_aside_and_no_unit_runs_again(tmp_path, whole, study, caplog):
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    (out / "study.json").write_text((out / "study.json").read_text()[:-30])
    assert studies.run(study, out).ran == 0
    assert "study.json: damaged" in caplog.text
    assert studies.stored(out) == studies.stored(whole[0])
    (out / "study.json").unlink()  # as if killed between the two
    assert studies.run(study, out).ran == 0


def test_the_choice_may_go_by_the_task_that_limits_it(tmp_path, saved, neuron_path, mirror):
    """Which runs unamplified, whatever the controls say, and with controls."""
    content = studies.content(
        saved("qwen2"), neuron_path("qwen2"), mirror, tasks=["amplify_xcopa"], then=None,
        controls={"unamplified": False, "random": [0], "corpus": "babel", "tokens": 200},
        choose={"metric": "acc", "task": "amplify_xcopa", "limit": {"acc": 0.01}},
    )  # fmt: skip
    finished = studies.run(studies.read(tmp_path / "one.yaml", content), tmp_path / "out")
    assert finished.ran == 1 + 2 * 2 * 3  # unamplified, and two conditions with a control for three targets
    found = finished.chosen["languages"]["est_Latn"]
    assert found["condition"] is not None
    assert found["random"] is not None


def test_a_language_without_a_value_or_a_damage_is_left_out_of_the_choice(tmp_path, saved, neuron_path, mirror, caplog):
    """From one base language: nothing steers to it, and nothing else limits its own damage."""
    content = studies.content(
        saved("qwen2"), neuron_path("qwen2"), mirror, bases=["ind_Latn"], controls=None,
        then={"tasks": ["amplify_xcopa"]},
    )  # fmt: skip
    finished = studies.run(studies.read(tmp_path / "one.yaml", content), tmp_path / "out")
    chosen = {language: found["condition"] is not None for language, found in finished.chosen["languages"].items()}
    assert chosen == {"est_Latn": True, "ind_Latn": False, "zho_Hans": True}
    assert "ind_Latn: the task has no value for it" in caplog.text


def test_a_preset_and_its_parts_are_one_condition(tmp_path, saved, neuron_path, mirror):
    content = studies.content(
        saved("qwen2"), neuron_path("qwen2"), mirror, tasks=["amplify_lss"], choose=None, then=None, controls=None,
        interventions=[{"preset": "paper_p_median"}, {"statistic": "sentence_median"}, {"factor": 2}],
    )  # fmt: skip
    assert studies.run(studies.read(tmp_path / "one.yaml", content), tmp_path / "out").ran == 2


def test_the_unamplified_side_is_the_same_whatever_ran_before_it(tmp_path, saved, neuron_path, mirror):
    """A statistic of the running input is scored another way; what is not amplified is not."""
    content = studies.content(
        saved("qwen2"), neuron_path("qwen2"), mirror, choose=None, then=None, controls=None,
        tasks=["amplify_lss_est_Latn", "amplify_lss_ind_Latn"], interventions=[{"factor": 1}, {"preset": "paper_max"}],
    )  # fmt: skip
    file = studies.read(tmp_path / "one.yaml", content)
    studies.run(file, tmp_path / "out")
    before = studies.stored(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/sweep/amplify_lss_ind_Latn")  # now nothing runs before it
    assert studies.run(file, tmp_path / "out").ran == 2
    assert studies.stored(tmp_path / "out") == before


def test_a_task_that_is_made_otherwise_runs_again(tmp_path, saved, neuron_path, mirror):
    content = studies.content(
        saved("qwen2"), neuron_path("qwen2"), mirror, choose=None, then=None, controls=None,
        tasks=[{"task": "own", "amplify": "cross"}], include_path=[str(tmp_path / "tasks")], metadata=None,
    )  # fmt: skip
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/utils.py").write_text(OWN_DOCUMENTS)
    for number, (target, ran) in enumerate((("0", 7), ("1", 7), ("1", 0))):
        random.seed(number)
        (tmp_path / "tasks/own.yaml").write_text(OWN_TASK.replace("TARGET", target))
        assert studies.run(studies.read(tmp_path / "one.yaml", content), tmp_path / "out").ran == ran


OWN_TASK = """\
task: own
custom_dataset: !function utils.documents
output_type: multiple_choice
test_split: test
doc_to_text: text
doc_to_target: TARGET
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc}]
"""
OWN_DOCUMENTS = """\
import random
import datasets

def documents(**_options):
    texts = [f"number {i}" for i in range(6)]
    random.shuffle(texts)  # as some tasks do when they are loaded
    return {"test": datasets.Dataset.from_list([{"text": text} for text in texts])}
"""


def test_the_folder_of_another_study_and_of_something_else_are_refused(tmp_path, whole, saved, neuron_path, mirror):
    other = studies.read(tmp_path / "other.yaml", studies.content(saved("qwen2"), neuron_path("qwen2"), mirror))
    with pytest.raises(StudyError, match=r"is of the study 'small', not of 'other': give another folder with --out"):
        studies.run(other, whole[0])
    (tmp_path / "else").mkdir()
    (tmp_path / "else/thesis.tex").write_text("")
    with pytest.raises(StudyError, match=r"has no study.json but thesis.tex"):
        studies.run(other, tmp_path / "else")


def test_a_second_process_on_the_folder_says_who_holds_it(whole, study):
    with (
        StudyFolder(whole[0]).held(),
        pytest.raises(StudyError, match=rf"is held by process {os.getpid()} on \S+: wait"),
    ):
        studies.run(study, whole[0])


def test_several_processes_are_told_to_be_one(whole, study, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    prepared = prepare(study)
    with pytest.raises(StudyError, match="one of 2 processes: a study runs in one"):
        run_study(prepared, whole[0], lambda *_: None)


def test_a_disk_that_fills_up_is_a_clear_line_and_the_study_goes_on(tmp_path, whole, study):
    """A limit on the size of files stands for the disk: writing fails in the same way."""
    out = tmp_path / "out"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "import conftest, studies; from lm_eval_amplify.errors import StudyError\n"
        "from lm_eval_amplify.sweep.study_file import read_study_file\n"
        "from lm_eval_amplify.sweep.prepare import prepare\n"
        "from lm_eval_amplify.sweep.run import run_study\n"
        "from pathlib import Path\n"
        "prepared = prepare(read_study_file(Path(sys.argv[1])))\n"
        "def report(stage, done, total):\n"
        "    if stage == 'sweep, units' and done == 2: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: run_study(prepared, Path(sys.argv[2]), report)\n"
        "except StudyError as error: print(error); sys.exit(2)\n"
    )
    paths = [str(Path(studies.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(study.located.path), str(out)],
        env=environment,
        cwd=tmp_path,  # the package that the other tests have, not a checkout that lies here
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "File too large; what is finished is kept: once there is room" in done.stdout
    assert len(list(out.glob("*/*/*/unit.json"))) == 2
    assert not list(out.glob("*/*/.*"))  # nothing half-written
    studies.run(study, out)
    assert studies.stored(out) == studies.stored(whole[0])


def test_a_study_that_is_read_while_it_runs_says_what_is_missing(tmp_path, whole):
    out = tmp_path / "out"
    shutil.copytree(whole[0], out)
    shutil.rmtree(out / "sweep/amplify_lss" / CONDITION)
    stored = read_study(out)
    assert [(unit.stage, unit.task, unit.condition.label) for unit in stored.missing] == [
        ("sweep", "amplify_lss", "set max x 1")
    ]
    assert all(isinstance(unit, Unit) for unit in stored.units)

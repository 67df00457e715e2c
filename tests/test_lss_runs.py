"""LSS as a run of the harness: --limit, logged samples, processes, what is scored once, unfit models."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import tiny
from lm_eval.models.huggingface import HFLM
from lss_by_hand import write_mirror
from lss_runs import FACTOR, evaluate, run, samples, synthetic_rows, tiny_files, two_processes

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import AmplifyError, LanguageError, ModelError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models.hf import AmplifiedHFLM

TASK = "amplify_lss_mlama_ind_Latn"
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Seven facts in Indonesian, four each in Chinese and Turkish."""
    rows = {short: list(facts) for short, facts in synthetic_rows().items()}
    rows["id"] += [fact | {"template": "[X] dekat [Y]."} for fact in rows["id"][:2]]
    rows["id"] += [rows["id"][0] | {"template": "[X] bukan [Y]."}]
    return write_mirror(tmp_path_factory.mktemp("mirror"), rows)


def command_line(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "lm_eval", *arguments, "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=600,
        env=ENVIRONMENT,
        check=False,
    )


def test_limit_counts_facts(files, mirror):
    results = run(files, [TASK], mirror, limit=5)
    assert results["n-samples"][TASK] == {"original": 7, "effective": 5}
    assert len(results["samples"][TASK]) == 5


def test_logged_samples_show_the_log_likelihoods_of_both_sides_by_name(files, mirror):
    first = samples(run(files, [TASK], mirror, limit=1), TASK)[0]
    assert first["doc"]["prompt"] == "Paris adalah ibu kota"
    assert first["doc"]["continuations"]["est_Latn"] == " Prantsusmaa"
    logged = first["doc"]["loglikelihoods"]
    answers = [pair[0] for (pair,) in first["resps"]]
    assert list(logged["unamplified"]) == ["ind_Latn", "est_Latn", "tam_Taml", "zho_Hans"]

    def by_hand(name: str, side: str | None):
        return pytest.approx(files.by_hand.loglikelihood("Paris adalah ibu kota", name, side), abs=1e-4)

    assert logged["unamplified"]["ind_Latn"] == by_hand(" Prancis", None)
    assert logged["amplified"]["est_Latn"] == {
        "ind_Latn": by_hand(" Prancis", "est_Latn"),
        "est_Latn": by_hand(" Prantsusmaa", "est_Latn"),
    }
    flat = [
        *(v for side in logged["amplified"].values() for v in side.values()),
        *logged["unamplified"].values(),
    ]
    assert flat == pytest.approx(answers)


def test_two_processes_give_the_numbers_of_one(files, mirror, tmp_path):
    """Seven facts are four and three; of Turkish and Chinese the second process has nothing to compare."""
    rows = [dict(fact) for fact in synthetic_rows()["tr"][:3]]
    rows[1]["obj_zh"] = None
    facts = {"id": synthetic_rows()["id"] + [f | {"template": "[X] di [Y]."} for f in synthetic_rows()["id"][:3]]}
    data = write_mirror(tmp_path / "mirror", facts | {"tr": rows})
    tasks = [TASK, "amplify_lss_mlama_tur_Latn"]
    arguments = {
        "model": {"pretrained": files.pretrained, "neurons": files.neurons, "factor": FACTOR},
        "tasks": tasks,
        "metadata": {"data_dir": str(data), "neurons": files.neurons},
        "again": {"tasks": tasks[1:], "metadata": {"data_dir": str(data), "targets": "zho_Hans"}},
    }
    first = two_processes(arguments, tmp_path / "out")
    second = json.loads((tmp_path / "out.1.json").read_text(encoding="utf-8"))
    one = run(files, tasks, data)
    assert 0 < second["remembered"] < first["remembered"], "each process scores its own facts"
    for task in tasks:
        single, double = one["results"][task], first["results"][task]
        assert single.keys() == double.keys()
        assert isinstance(single["lss_stderr,none"], float)
        for name, value in single.items():
            assert double[name] == (pytest.approx(value, abs=1e-5) if isinstance(value, float) else value)
        for alone, shared in zip(samples(one, task), samples(first, task), strict=True):
            assert shared["doc"]["prompt"] == alone["doc"]["prompt"]
            assert shared["shift"] == pytest.approx(alone["shift"], abs=1e-5)
    assert first["again"][tasks[1]]["skipped,none"] == 1


class Forwards:
    """Counts the forward passes of a model's two sides."""

    def __init__(self, lm: AmplifiedHFLM) -> None:
        self.amplified = self.unamplified = 0
        amplified_as = lm.amplified_as
        inside = False

        @contextmanager
        def watched(targets):
            nonlocal inside
            inside = True
            with amplified_as(targets):
                yield
            inside = False

        def count(*_):
            if inside:
                self.amplified += 1
            else:
                self.unamplified += 1

        lm.amplified_as = watched
        lm.model.register_forward_hook(count)

    def since(self) -> tuple[int, int]:
        counts = self.amplified, self.unamplified
        self.amplified = self.unamplified = 0
        return counts


def prepared(**arguments) -> AmplifiedHFLM:
    return AmplifiedHFLM(
        tiny.model("qwen2"),
        tokenizer=tiny.tokenizer(),
        neurons=tiny.neurons("qwen2"),
        batch_size=1,
        scorer="stock",  # a forward pass for each request
        **arguments,
    )


def test_the_unamplified_side_is_scored_once_for_all_targets_languages_and_factors(mirror):
    lm = prepared()
    forwards = Forwards(lm)

    def lss(targets: str) -> tuple[int, int]:
        evaluate(lm, None, [TASK], {"data_dir": str(mirror), "targets": targets})
        return forwards.since()

    amplified, unamplified = lss("est_Latn")
    assert amplified == unamplified == 14, "seven facts, two objects"
    assert lss("est_Latn") == (0, 0)
    assert lss("est_Latn+tam_Taml") == (14, 7), "another target: only its own objects are new"
    lm.intervention = Intervention("set", 3.0, "max")
    lm.amplifier = Amplifier(lm.model, lm.neurons, lm.intervention)
    assert lss("est_Latn+tam_Taml") == (28, 0), "another factor: only the amplified side is new"
    assert lss("tam_Taml") == (0, 0)


def test_amplifying_by_one_shifts_nothing_even_in_batches_of_several(files, mirror):
    results = run(files, [TASK], mirror, operation="scale", factor=1.0, batch_size=4)
    for sample in samples(results, TASK):
        assert {sample["shift"], sample["shift_est_Latn"], sample["lss"]} == {0.0}


def test_a_language_without_neurons_shifts_nothing_even_in_batches_of_several(mirror):
    content = tiny.neurons("qwen2")
    empty = type(content.neurons["est_Latn"])(
        *(getattr(content.neurons["est_Latn"], name)[:0] for name in ("layer", "index")),
        {name: values[:0] for name, values in content.neurons["est_Latn"].statistics.items()},
    )
    neurons = type(content)(content.manifest, {**content.neurons, "est_Latn": empty})
    lm = AmplifiedHFLM(tiny.model("qwen2"), tokenizer=tiny.tokenizer(), neurons=neurons, batch_size=4)
    results = evaluate(lm, None, [TASK], {"data_dir": str(mirror), "targets": "est_Latn+tam_Taml"}, batch_size=4)
    assert [sample["shift_est_Latn"] for sample in samples(results, TASK)] == [0.0] * 7
    assert all(sample["shift_tam_Taml"] != 0 for sample in samples(results, TASK))


def test_a_group_weights_its_languages_by_their_facts_and_leaves_out_the_target_itself(files, mirror, caplog):
    results = run(files, ["amplify_lss_mlama"], mirror, language="zho_Hans")
    assert results["group_subtasks"]["amplify_lss_mlama"] == [TASK, "amplify_lss_mlama_tur_Latn"]
    own, other = (results["results"][f"amplify_lss_mlama_{code}"] for code in ("ind_Latn", "tur_Latn"))
    group = results["results"]["amplify_lss_mlama"]
    for metric in ("lss,none", "shift,none"):
        assert group[metric] == pytest.approx((7 * own[metric] + 4 * other[metric]) / 11)
    assert isinstance(group["lss_stderr,none"], float)
    assert "amplify_lss_mlama_zho_Hans left out of amplify_lss_mlama: no target language" in caplog.text


def test_standard_errors_are_those_of_a_mean_and_the_same_in_every_run(files, mirror):
    first, again = (run(files, [TASK], mirror)["results"][TASK] for _ in range(2))
    values = [sample["shift"] for sample in samples(run(files, [TASK], mirror), TASK)]
    mean = sum(values) / len(values)
    expected = math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)
    assert first["shift_stderr,none"] == pytest.approx(expected, rel=0.03)
    assert first == again


@pytest.mark.parametrize("metadata", [{}, {"targets": "est_Latn"}])
def test_a_plain_model_on_the_command_line_is_one_line_that_names_the_model_to_use(files, mirror, metadata):
    ran = command_line(
        "--model", "hf", "--model_args", f"pretrained={files.pretrained}", "--tasks", TASK,
        "--metadata", json.dumps({"data_dir": str(mirror)} | metadata),
    )  # fmt: skip
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("lm_eval: error: ")
    assert "--model amplified_hf" in last


def test_a_plain_model_in_python_is_a_typed_error_before_anything_is_scored(mirror):
    lm = HFLM(tiny.model("qwen2"), tokenizer=tiny.tokenizer())
    lm.model.register_forward_hook(lambda *_: pytest.fail("scored"))
    with pytest.raises(ModelError, match=r"HFLM has no loglikelihood_amplified: use --model amplified_hf"):
        evaluate(lm, None, [TASK], {"data_dir": str(mirror), "targets": "est_Latn"})


def test_a_model_without_neurons_is_a_typed_error(mirror):
    lm = AmplifiedHFLM(tiny.model("qwen2"), tokenizer=tiny.tokenizer())
    with pytest.raises(ModelError, match="give neurons=<file>"):
        evaluate(lm, None, [TASK], {"data_dir": str(mirror), "targets": "est_Latn"})


def test_a_model_object_without_metadata_is_told_to_give_targets(mirror):
    with pytest.raises(LanguageError, match=r"give metadata \{'targets'"):
        evaluate(prepared(), None, [TASK], {"data_dir": str(mirror)})


def test_a_model_object_whose_neuron_file_lacks_a_target_is_told_before_anything_is_scored(tmp_path):
    lm = prepared()
    lm.model.register_forward_hook(lambda *_: pytest.fail("scored"))
    rows = {"id": [fact | {"obj_fr": "Autre"} for fact in synthetic_rows()["id"]]}
    metadata = {"data_dir": str(write_mirror(tmp_path, rows)), "targets": "fra_Latn"}
    with pytest.raises(AmplifyError, match=rf"{TASK}.*no language 'fra_Latn'.*it has est_Latn"):
        evaluate(lm, None, [TASK], metadata)

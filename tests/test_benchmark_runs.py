"""The benchmarks as runs: every language of a mirror, in its own language, by two processes, on the command line."""

from __future__ import annotations

import json
import math
import sys

import pytest
import tiny
import toy_benchmarks
import toy_tasks
from lm_eval.__main__ import cli_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import manager as harness_manager
from lss_runs import evaluate, two_processes
from task_tools import manager, ours, read_jsonl, stock
from tokenizers import normalizers

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import write_neurons
from lm_eval_amplify.resources import tasks_folder

LANGUAGES = ("ind_Latn", "ita_Latn", "rus_Cyrl", "zho_Hans")
PARITY = 1e-5


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_benchmarks.write_mirror(toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror")))


@pytest.fixture(scope="module")
def neurons(tmp_path_factory):
    path = tmp_path_factory.mktemp("neurons") / "llama.safetensors"
    write_neurons(tiny.neurons("llama", LANGUAGES), path)
    return path


@pytest.fixture
def lm_eval(monkeypatch, capfd, saved):
    """Run ``lm_eval --model hf`` in this process, with our tasks alone; returns (exit status, stdout, stderr)."""
    index = manager(tasks_folder()).task_index
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # its handler would outlive this capture
    monkeypatch.setattr(harness_manager.TaskIndex, "build", staticmethod(lambda _paths: dict(index)))

    def run(*options, tasks, metadata=None):
        argv = ["lm_eval", "--model", "hf", "--model_args", f"pretrained={saved('llama')}", "--device", "cpu"]
        argv += ["--tasks", tasks, "--metadata", json.dumps(metadata or {}), *map(str, options)]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            cli_evaluate()
        except SystemExit as stop:
            return stop.code, *capfd.readouterr()
        return 0, *capfd.readouterr()

    return run


def test_every_language_that_the_real_mirror_has_builds_its_requests(real_data, tmp_path):
    (tmp_path / "CohereLabs").mkdir()
    for name in ("cambridgeltl", "Muennighoff", "facebook"):
        (tmp_path / name).symlink_to(real_data / name)
    for layout in ("lite", "base"):
        (tmp_path / f"CohereLabs/include-{layout}-44").symlink_to(real_data / "include_like")
    numbers = {"xcopa": 6, "xwinograd": 3, "include": 3, "include_paper": 3, "include_base": 3,
               "include_base_paper": 3, "flores_ppl": 18}  # fmt: skip
    for name, languages in numbers.items():
        tasks = ours(".", f"amplify_{name}", tmp_path)
        assert len(tasks) == languages
        for task in tasks.values():
            task.build_all_requests(limit=3, rank=0, world_size=1)
            assert {instance.doc["amplify_language"] for instance in task.instances} == {task.task_name[-8:]}


def test_a_group_prints_its_mean_weighted_by_documents_with_standard_errors(lm_eval, mirror):
    status, out, err = lm_eval(tasks="amplify_include,amplify_flores_ppl", metadata={"data_dir": str(mirror)})
    assert status == 0, err[-2000:]
    table = {cells[1].strip(" -"): cells for cells in (line.split("|") for line in out.splitlines()) if len(cells) > 8}
    for row in ("amplify_include", "amplify_include_ita_Latn", "amplify_flores_ppl", "amplify_flores_ppl_ind_Latn"):
        assert float(table[row][7]) > 0
        assert float(table[row][9]) > 0
    assert "|acc_arts_humanities" in out


def test_the_harness_own_tasks_run_each_in_its_own_language(mirror, neurons, saved, monkeypatch):
    """``language=task`` by the table of names: the same answers as our tasks, whose documents say their language."""
    rows = {"test": read_jsonl(mirror / "Muennighoff/xwinograd/ru/test.jsonl")}
    exams = {"test": read_jsonl(mirror / "CohereLabs/include-base-44/Italian/test.jsonl")}
    name = "include_base_44_italian_stem"
    theirs = [
        stock(monkeypatch, "xwinograd", "xwinograd_ru", "Muennighoff/xwinograd", "ru", rows),
        stock(monkeypatch, "include/default/Italian", name, "CohereForAI/include-base-44", "Italian", exams),
    ]
    lm = AmplifiedHFLM(str(saved("llama")), neurons=str(neurons), device="cpu", batch_size=2, factor=3.0)
    results = evaluate(lm, None, theirs, {})
    own = evaluate(lm, None, ["amplify_xwinograd_rus_Cyrl", "amplify_include_base_ita_Latn"], {"data_dir": str(mirror)})
    plain = evaluate(
        HFLM(str(saved("llama")), device="cpu", batch_size=2), None, ["amplify_xwinograd_rus_Cyrl"],
        {"data_dir": str(mirror)},
    )  # fmt: skip

    def answers(found, task, keep=lambda _doc: True):
        logged = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
        return [response[0][0] for one in logged if keep(one["doc"]) for response in one["resps"]]

    amplified = answers(own, "amplify_xwinograd_rus_Cyrl")
    assert answers(results, "xwinograd_ru") == pytest.approx(amplified, abs=PARITY)
    assert answers(results, name) == pytest.approx(
        answers(own, "amplify_include_base_ita_Latn", lambda doc: doc["domain"] == "STEM"), abs=PARITY
    )
    unamplified = answers(plain, "amplify_xwinograd_rus_Cyrl")
    assert all(abs(mine - other) > 1e-3 for mine, other in zip(amplified[:2], unamplified[:2], strict=True))


def test_a_domain_that_only_one_of_two_processes_has_is_in_the_results_of_both(mirror, neurons, saved, tmp_path):
    """Documents go to the processes in turn: the second of five has a domain of its own."""
    rows = toy_benchmarks.include_rows("lite")
    rows[1], rows[2] = rows[2], rows[1]
    data = tmp_path / "mirror"
    toy_benchmarks.write_split(data / "CohereLabs/include-lite-44/Indonesian", rows)
    for name in ("Muennighoff", "facebook"):
        (data / name).symlink_to(mirror / name)
    tasks = ["amplify_include_ind_Latn", "amplify_xwinograd_rus_Cyrl", "amplify_flores_ppl_zho_Hans"]
    model = {"pretrained": str(saved("llama")), "neurons": str(neurons), "factor": 2.0}
    metadata = {"data_dir": str(data)}
    again = {"tasks": tasks[:1], "metadata": metadata}
    arguments = {"model": model, "tasks": tasks, "metadata": metadata, "again": again}
    two = two_processes(arguments, tmp_path / "out")
    one = evaluate("amplified_hf", model, tasks, metadata)
    for task in tasks:
        single, double = one["results"][task], two["results"][task]
        assert single.keys() == double.keys()
        for name, value in single.items():
            expected = pytest.approx(value, rel=1e-5, nan_ok=True) if isinstance(value, float) else value
            assert double[name] == expected, (task, name)
    exam = one["results"][tasks[0]]
    assert exam["acc_driving_license,none"] in (0.0, 1.0)
    assert exam["sample_len"] == 5


def test_a_domain_without_a_document_under_a_limit_has_no_value_and_no_warning(mirror, saved, caplog):
    results = evaluate(
        "hf", {"pretrained": str(saved("llama"))}, ["amplify_include_ind_Latn"], {"data_dir": str(mirror)}, limit=1
    )["results"]["amplify_include_ind_Latn"]
    assert math.isnan(results["acc_driving_license,none"])
    assert results["acc_stem,none"] == results["acc,none"]
    assert "not scored on the same number" not in caplog.text


def test_predicting_only_leaves_metrics_out(mirror, saved, tmp_path, lm_eval):
    status, _, err = lm_eval(
        "--predict_only", "--log_samples", "--output_path", tmp_path, "--limit", 1,
        tasks="amplify_include_ind_Latn,amplify_flores_ppl_ind_Latn", metadata={"data_dir": str(mirror)},
    )  # fmt: skip
    assert status == 0, err[-2000:]


def test_an_ending_that_the_tokenizer_drops_has_the_probability_of_nothing(mirror, neurons, saved):
    """Where the harness's own scoring fails: such a tokenizer makes no token of the space that is the ending."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved("llama"))
    before = tokenizer.backend_tokenizer.normalizer
    strip = normalizers.Strip(left=False, right=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([before, strip]) if before else strip
    assert tokenizer("a ")["input_ids"] == tokenizer("a")["input_ids"]
    common = {"tokenizer": tokenizer, "device": "cpu", "batch_size": 2}
    metadata = {"data_dir": str(mirror)}
    lm = AmplifiedHFLM(str(saved("llama")), neurons=str(neurons), **common)
    results = evaluate(lm, None, ["amplify_xwinograd_rus_Cyrl"], metadata)
    first, second = sorted(results["samples"]["amplify_xwinograd_rus_Cyrl"], key=lambda sample: sample["doc_id"])
    assert [response[0] for response in second["resps"]] == [(0.0, True), (0.0, True)]
    assert second["acc"] == 1.0, "equal answers: the first option counts as chosen"
    assert all(response[0][0] < -1 for response in first["resps"])


@pytest.mark.parametrize(
    ("tasks", "spoil", "message"),
    [
        ("amplify_include_ita_Latn", "CohereLabs/include-lite-44/Italian/test.jsonl", "Italian: expected one of test."),
        ("amplify_xwinograd_jpn_Jpan", "Muennighoff/xwinograd/jp", "no Muennighoff/xwinograd (jp) in data_dir="),
        ("amplify_xwinograd_fra_Latn", b'{"sentence": "a _ b"}\n{"sentence": ', "test.jsonl, line 2: invalid JSON"),
        ("amplify_xwinograd_fra_Latn", b'{"sentence": "a _ b"}\n', "no column 'option1'"),
        ("amplify_flores_ppl_any", None, "flores_language=None: expected one language"),
    ],
)
def test_bad_input_on_the_command_line_is_one_line_and_status_2(lm_eval, mirror, tmp_path, tasks, spoil, message):
    import shutil

    data = tmp_path / "mirror"
    shutil.copytree(mirror, data)
    if isinstance(spoil, bytes):
        (data / "Muennighoff/xwinograd/fr/test.jsonl").write_bytes(spoil)
    elif spoil:
        path = data / spoil
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    status, out, err = lm_eval("--output_path", tmp_path / "out", tasks=tasks, metadata={"data_dir": str(data)})
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("lm_eval: error: ")
    assert message in last
    assert "Traceback" not in out + err
    assert not (tmp_path / "out").exists()

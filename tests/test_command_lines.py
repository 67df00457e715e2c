"""The stock ``lm_eval`` command line, and our own, as a user types them."""

from __future__ import annotations

import functools
import json
import pickle
import subprocess
import sys

import pytest
import tiny
import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.tasks import manager

from lm_eval_amplify import cli
from lm_eval_amplify.neurons import read_neurons, write_neurons
from lm_eval_amplify.neurons.reference import import_reference_mask


@pytest.fixture(scope="module")
def index():
    """The harness's index of its thirteen thousand tasks, read once."""
    build = manager.TaskIndex.build
    return functools.cache(lambda paths: build(list(paths)))


@pytest.fixture
def lm_eval(monkeypatch, capfd, index, mirror, saved, neuron_path):
    """Run ``lm_eval --model amplified_hf`` on tiny Qwen2 in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)  # its handler would outlive this capture
    monkeypatch.setattr(manager.TaskIndex, "build", staticmethod(lambda paths: dict(index(tuple(paths)))))

    def run(*options, tasks="amplify_xcopa_ind_Latn", data_dir=mirror, model="amplified_hf", **model_args):
        given = {"pretrained": saved("qwen2"), "neurons": neuron_path("qwen2")} | model_args
        joined = ",".join(f"{name}={value}" for name, value in given.items() if value is not None)
        argv = ["lm_eval", "--model", model, "--model_args", joined, "--tasks", tasks, "--device", "cpu"]
        argv += ["--metadata", json.dumps({"data_dir": str(data_dir)}), *map(str, options)]
        monkeypatch.setattr(sys, "argv", argv)
        status = 0
        try:
            cli_evaluate()
        except SystemExit as stop:
            status = stop.code
        return status, *capfd.readouterr()

    return run


def results_in(folder):
    (path,) = folder.glob("*/results_*.json")
    logged = {p.name.split("_2")[0].removeprefix("samples_"): p for p in folder.glob("*/samples_*.jsonl")}
    return json.loads(path.read_text()), {
        task: [json.loads(line) for line in p.read_text().splitlines()] for task, p in logged.items()
    }


def test_a_run_prints_its_table_and_writes_results_and_samples(lm_eval, tmp_path):
    status, out, _ = lm_eval(
        "--log_samples", "--output_path", tmp_path, "--num_fewshot", 1, "--limit", 3,
        tasks="amplify_xcopa", operation="scale", factor=2.5, language="est_Latn",
    )  # fmt: skip
    assert status == 0
    assert "|amplify_xcopa " in out
    assert "|acc   |↑  |" in out
    results, samples = results_in(tmp_path)
    assert results["config"]["amplify"]["language"] == "est_Latn"
    assert results["config"]["amplify"]["mode"] == "fold"
    assert len(samples) == 11
    for task, logged in samples.items():
        assert len(logged) == 3
        assert {sample["doc"]["amplify_language"] for sample in logged} == {task.removeprefix("amplify_xcopa_")}
        assert all(len(sample["arguments"]) == 2 for sample in logged)
    assert results["n-shot"]["amplify_xcopa_ind_Latn"] == 1


def test_samples_and_the_chat_template_behave(lm_eval, tmp_path):
    status, *_ = lm_eval(
        "--log_samples", "--output_path", tmp_path, "--samples", '{"amplify_xcopa_ind_Latn": [1, 4]}',
        "--apply_chat_template",
    )  # fmt: skip
    assert status == 0
    _, samples = results_in(tmp_path)
    assert [sample["doc_id"] for sample in samples["amplify_xcopa_ind_Latn"]] == [1, 4]
    prompt = samples["amplify_xcopa_ind_Latn"][0]["arguments"]["gen_args_0"]["arg_0"]
    assert prompt.startswith("<|user|>\n")
    assert prompt.endswith("<|assistant|>\n")


def assert_one_line(result, message):
    status, out, err = result
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("lm_eval: error: ")
    assert message in last
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ({"neurons": "nowhere.safetensors"}, "no neuron file 'nowhere.safetensors'"),
        ({"language": "ind_Latin"}, "unknown language 'ind_Latin' (did you mean 'ind_Latn'"),
        ({"language": "fr"}, "no language 'fra_Latn'"),
        ({"statistic": "p90"}, "no statistic 'p90'"),
        ({"mode": "fold"}, "mode=fold with operation 'set'"),
        ({"mode": "hok"}, "mode=hok (did you mean 'hook'?): expected auto, fold, hook"),
        ({"factor": "nan"}, "factor=nan: expected a finite number"),
        ({"factor": "inf"}, "factor=inf: expected a finite number"),
        ({"factor": "two"}, "factor='two': expected a finite number"),
        ({"layers": "0-9"}, "layers=0-9: layer 3 is out of range"),
        ({"operatin": "set"}, "unknown argument 'operatin' (did you mean 'operation'"),
        ({"data_dir": "/nowhere"}, "data_dir=/nowhere is not a folder"),
        ({"tasks": "arc_easy", "data_dir": None}, "cannot"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_status_2(lm_eval, tmp_path, monkeypatch, model_args, message):
    if model_args.get("tasks") == "arc_easy":  # a task without a language; its data stood in for
        message = "task 'arc_easy' has no language"
        monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", lambda *_a, **_k: _arc())
    result = lm_eval("--output_path", tmp_path / "out", "--log_samples", **model_args)
    assert_one_line(result, message)
    assert not (tmp_path / "out").exists()


def _arc():
    import datasets

    row = {
        "id": "1",
        "question": "2+2?",
        "choices": {"text": ["3", "4"], "label": ["A", "B"]},
        "answerKey": "B",
    }
    rows = datasets.Dataset.from_list([row] * 3)
    return datasets.DatasetDict({"train": rows, "validation": rows, "test": rows})


def damaged(kind, good: bytes) -> bytes:
    if kind == "truncated":
        return good[:-7]
    if kind == "flipped":
        return good[:-40] + bytes([good[-40] ^ 4]) + good[-39:]
    if kind == "version":
        return good.replace(b'"version":"1"', b'"version":"9"')
    return pickle.dumps([[[1]]])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "truncated or damaged"),
        ("flipped", "the checksum does not match"),
        ("version", "metadata field 'version' is '9', expected '1'"),
        ("pickle", "pickle"),
    ],
)
def test_a_damaged_neuron_file_is_one_line_and_status_2(lm_eval, neuron_path, tmp_path, kind, message):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damaged(kind, neuron_path("qwen2").read_bytes()))
    assert_one_line(lm_eval(neurons=path), message)


def test_a_neuron_file_of_another_model_is_one_line_and_status_2(lm_eval, neuron_path):
    assert_one_line(lm_eval(neurons=neuron_path("gpt2")), "not of this model: neurons with intermediate_size=64")


def test_an_imported_mask_says_what_to_do_for_want_of_a_statistic(lm_eval, tmp_path):
    torch.save([[torch.tensor([1, 2])] * tiny.LAYERS], tmp_path / "m.pth")
    path = tmp_path / "imported.safetensors"
    write_neurons(import_reference_mask(tmp_path / "m.pth", ["id"]), path)
    assert_one_line(lm_eval(neurons=path), "it has none (an imported mask has none): use statistic=one")
    assert lm_eval("--limit", 2, neurons=path, operation="scale", factor=3)[0] == 0
    assert lm_eval("--limit", 2, neurons=path, statistic="one", factor=3)[0] == 0


def test_a_mistake_in_a_real_process_is_one_line_and_status_2(neuron_path, saved):
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "amplified_hf",
        "--tasks",
        "amplify_xcopa_ind_Latn",
    ]
    command += ["--model_args", f"pretrained={saved('qwen2')},neurons={neuron_path('qwen2')},mode=fold"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_one_line((done.returncode, done.stdout, done.stderr), "mode=fold with operation 'set'")


# Our own command ------------------------------------------------------------------------------------------------------


def ours(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code or 0, *capsys.readouterr()
    return 0, *capsys.readouterr()


def test_neurons_show_prints_manifest_numbers_and_shares(monkeypatch, capsys, neuron_path):
    status, out, _ = ours(monkeypatch, capsys, "neurons", "show", neuron_path("llama"))
    assert status == 0
    assert "intermediate_size  48" in out
    assert "ind_Latn    Indonesian" in out
    assert "max, sentence_median" in out
    assert "33.3" in out


def test_neurons_import_writes_a_file_that_is_read_again(monkeypatch, capsys, tmp_path):
    torch.save([[torch.tensor([3, 1]), torch.tensor([])], [torch.tensor([]), torch.tensor([0])]], tmp_path / "m.pth")
    out_path = tmp_path / "o.safetensors"
    status, out, _ = ours(
        monkeypatch,
        capsys,
        "neurons",
        "import",
        tmp_path / "m.pth",
        "--languages",
        "en, zh",
        "--out",
        out_path,
    )
    assert status == 0
    assert f"written to {out_path}" in out
    assert read_neurons(out_path).neurons["eng_Latn"].index.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["neurons", "show", "nowhere"], "no neuron file 'nowhere'"),
        (
            ["neurons", "import", "nowhere.pth", "--languages", "en", "--out", "x"],
            "cannot read mask nowhere.pth",
        ),
    ],
)
def test_a_mistake_on_our_command_line_is_one_line_and_status_2(monkeypatch, capsys, arguments, message):
    status, out, err = ours(monkeypatch, capsys, *arguments)
    assert status == 2
    assert err.startswith("lm-eval-amplify: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_an_output_that_cannot_be_written_leaves_nothing(monkeypatch, capsys, tmp_path):
    torch.save([[torch.tensor([1])]], tmp_path / "m.pth")
    target = tmp_path / "none" / "o.safetensors"
    status, _, err = ours(
        monkeypatch, capsys, "neurons", "import", tmp_path / "m.pth", "--languages", "en", "--out", target
    )
    assert status == 2
    assert "cannot write neuron file" in err
    assert not target.parent.exists()


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    import lm_eval_amplify

    status, out, _ = ours(monkeypatch, capsys, "--version")
    assert (status, out.strip()) == (0, lm_eval_amplify.__version__)


def test_a_neuron_file_read_here_can_be_written_again(neuron_path, tmp_path):
    write_neurons(read_neurons(neuron_path("llama")), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == neuron_path("llama").read_bytes()

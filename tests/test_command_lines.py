"""The stock ``lm_eval`` command line, and our own, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tiny
import torch
from harness_runs import assert_one_line

from lm_eval_amplify import cli
from lm_eval_amplify.neurons import read_neurons, write_neurons
from lm_eval_amplify.neurons.reference import import_reference_mask


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


def test_an_imported_mask_runs_by_scale_and_by_the_constant_one(lm_eval, tmp_path):
    torch.save([[torch.tensor([1, 2])] * tiny.LAYERS], tmp_path / "m.pth")
    path = tmp_path / "imported.safetensors"
    write_neurons(import_reference_mask(tmp_path / "m.pth", ["id"]), path)
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

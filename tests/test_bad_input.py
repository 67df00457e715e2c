"""Users' mistakes, on every way in: the command line, ``simple_evaluate`` and the Python API."""

from __future__ import annotations

import math
import pickle
from typing import Any, NamedTuple

import datasets
import pytest
import tiny
import torch
import toy_tasks
import transformers
from harness_runs import XCOPA, assert_one_line, evaluator, samples, toys
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify import Amplifier, AmplifyError, Intervention, NeuronFile
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import locate_neurons, read_neurons, write_neurons
from lm_eval_amplify.neurons.reference import import_reference_mask


class Mistake(NamedTuple):
    """Arguments of the model that are wrong, and what the one line says."""

    arguments: dict[str, Any]
    """A neuron file or model of ours is named by its key in ``files``, as ``@key``."""
    message: str
    """A pattern."""
    in_python: bool = True
    """Whether the package's own classes can be used so wrongly too."""
    before_loading: bool = True
    """Whether it is told before the model is loaded."""


LATE = {"before_loading": False}
HARNESS = {"in_python": False}

MISTAKES = [
    Mistake({"neurons": "nowhere.safetensors"}, "no neuron file 'nowhere.safetensors'"),
    Mistake({"neurons": "@truncated"}, "truncated or damaged"),
    Mistake({"neurons": "@flipped"}, "the checksum does not match"),
    Mistake({"neurons": "@version"}, "metadata field 'version' is '9', expected '1'"),
    Mistake({"neurons": "@pickle"}, "pickle"),
    Mistake({"neurons": "@gpt2"}, "not of this model: neurons with intermediate_size=64, the model has 40", **LATE),
    Mistake({"neurons": "@imported"}, r"it has none \(an imported mask has none\): use statistic=one"),
    Mistake({"language": "fr"}, "no language 'fra_Latn'.*it has est_Latn"),
    Mistake({"language": "ind_Latm"}, "no language 'ind_Latm'.*did you mean 'ind_Latn'"),
    Mistake({"language": "ind_Latin"}, r"unknown language 'ind_Latin' \(did you mean 'ind_Latn'"),
    Mistake({"language": "ind_Latn+indo"}, "unknown language 'indo'"),
    Mistake({"language": ""}, "language=''|unknown language ''"),
    Mistake({"operation": "sett"}, r"operation=sett \(did you mean 'set'\?\): expected set, add, scale"),
    Mistake({"statistic": "p90"}, "no statistic 'p90'; it has max, sentence_median"),
    Mistake({"factor": "two"}, "factor='two': expected a finite number"),
    Mistake({"factor": math.nan}, "factor=nan: expected a finite number"),
    Mistake({"factor": math.inf}, "factor=inf: expected a finite number"),
    Mistake({"others_factor": 0}, "others_factor=0 needs others_operation=set"),
    Mistake({"others_operation": "scale"}, "others_operation=scale needs others_factor=<number>"),
    Mistake({"layers": "0-9"}, "layers=0-9: layer 3 is out of range, the neuron file's model has layers 0 to 2"),
    Mistake({"layers": "first"}, "layers=first: expected 'all' or layers and ranges such as 0-5"),
    Mistake({"mode": "hok"}, r"mode=hok \(did you mean 'hook'\?\): expected auto, fold, hook"),
    Mistake({"mode": "fold"}, "mode=fold with operation 'set': only 'scale' can be folded"),
    Mistake({"on_nonfinite": "eror"}, r"on_nonfinite=eror \(did you mean 'error'\?\): expected warn, error", **HARNESS),
    Mistake({"scorer": "paked"}, r"scorer=paked \(did you mean 'packed'\?\): expected packed, stock", **HARNESS),
    Mistake(
        {"positions": "generate"}, r"positions=generate \(did you mean 'generated'\?\): expected all, prompt, generated"
    ),
    Mistake({"preset": "paper_mx"}, "preset=paper_mx .did you mean .paper_max.*: expected paper_p_max", **HARNESS),
    Mistake({"preset": "paper_zero", "factor": 2}, "paper_zero is operation=set,.*leave factor out", **HARNESS),
    Mistake({"statistic": "batch_p11"}, r"statistic=batch_p11 \(did you mean 'batch_p10'"),
    Mistake({"operation": "scale", "mode": "fold", "positions": "prompt"}, "mode=fold with positions=prompt"),
    Mistake({"factr": 2}, r"unknown argument 'factr' \(did you mean 'factor'", **HARNESS),
    Mistake({"operatoin": "set"}, "did you mean 'operation'", **HARNESS),
    Mistake({"neuron": "x"}, "did you mean 'neurons'", **HARNESS),
    Mistake({"stat": "max"}, "did you mean 'statistic'", **HARNESS),
    Mistake({"pretrained": None}, "give pretrained=<model>: no neuron file names the model", **HARNESS),
    Mistake(
        {"pretrained": "@mamba", "neurons": "@gpt2"},
        "MambaForCausalLM .*no feed-forward network of a known form",
        **LATE,
    ),
]


@pytest.fixture(scope="session")
def files(tmp_path_factory, neuron_path, saved):
    """Neuron files, damaged, foreign and poor, and a model without feed-forward networks."""
    folder = tmp_path_factory.mktemp("bad")
    good = neuron_path("qwen2").read_bytes()
    contents = {
        "truncated": good[:-7],
        "flipped": good[:-40] + bytes([good[-40] ^ 4]) + good[-39:],
        "version": good.replace(b'"version":"1"', b'"version":"9"'),
        "pickle": pickle.dumps([[[1]]]),
    }
    for name, content in contents.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    torch.save([[torch.tensor([1, 2])] * tiny.LAYERS], folder / "m.pth")
    write_neurons(import_reference_mask(folder / "m.pth", ["id"]), folder / "imported.safetensors")
    config = transformers.MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=2, state_size=4)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / "mamba")
    tiny.tokenizer().save_pretrained(folder / "mamba")
    found = {path.stem: str(path) for path in folder.glob("*.safetensors")}
    return found | {"mamba": str(folder / "mamba"), "gpt2": str(neuron_path("gpt2"))}


@pytest.fixture
def given(files, saved, neuron_path):
    """The model's arguments with a mistake in them."""

    def complete(mistake: Mistake) -> dict[str, Any]:
        arguments = {"pretrained": str(saved("qwen2")), "neurons": str(neuron_path("qwen2"))} | mistake.arguments
        named = {name: str(value)[1:] for name, value in arguments.items() if str(value).startswith("@")}
        return arguments | {name: files[key] for name, key in named.items()}

    return complete


def assert_one_clear_line(error: AmplifyError) -> None:
    assert "\n" not in str(error)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: str(mistake.arguments))
def test_on_the_command_line(lm_eval, given, tmp_path, mistake):
    result = lm_eval("--output_path", tmp_path / "out", "--log_samples", **given(mistake))
    assert_one_line(result, mistake.message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: str(mistake.arguments))
def test_in_simple_evaluate(evaluate, given, monkeypatch, mistake):
    if mistake.before_loading:
        monkeypatch.setattr(HFLM, "__init__", lambda *_a, **_k: pytest.fail("the model was loaded"))
    with pytest.raises(AmplifyError, match=mistake.message) as caught:
        evaluate("amplified_hf", given(mistake), XCOPA[:1])
    assert_one_clear_line(caught.value)


@pytest.mark.parametrize(
    "mistake", [one for one in MISTAKES if one.in_python], ids=lambda mistake: str(mistake.arguments)
)
def test_in_python(given, mistake):
    with pytest.raises(AmplifyError, match=mistake.message) as caught:
        amplify(**given(mistake))
    assert_one_clear_line(caught.value)


def amplify(pretrained, neurons, language="ind_Latn", mode="auto", **intervention):
    """As someone would who does without the harness."""
    content = read_neurons(locate_neurons(neurons))
    model = transformers.AutoModelForCausalLM.from_pretrained(pretrained)
    amplifier = Amplifier(model, content, Intervention(**intervention), mode=mode)
    with amplifier.amplified(*language.split("+")):
        pytest.fail("amplified")


# What is not an argument of the model -----------------------------------------------------------------------------


def test_a_mirror_that_is_not_there(lm_eval, saved, neuron_path):
    assert_one_line(lm_eval(data_dir="/nowhere"), "data_dir=/nowhere is not a folder")
    arguments = {"pretrained": str(saved("qwen2")), "neurons": str(neuron_path("qwen2"))}
    with pytest.raises(AmplifyError, match="data_dir=/nowhere is not a folder"):
        evaluator("/nowhere")("amplified_hf", arguments, XCOPA[:1])


def test_a_task_without_a_language(lm_eval, evaluate, saved, neuron_path, monkeypatch):
    rows = datasets.Dataset.from_list([
        {"id": "1", "question": "2+2?", "choices": {"text": ["3", "4"], "label": ["A", "B"]}, "answerKey": "B"}
    ])  # fmt: skip
    arc = datasets.DatasetDict({"train": rows, "validation": rows, "test": rows})
    with monkeypatch.context() as stand_in:
        stand_in.setattr("lm_eval.api.task.datasets.load_dataset", lambda *_a, **_k: arc)
        assert_one_line(lm_eval(tasks="arc_easy"), "task 'arc_easy' has no language: .*give language=<code>")
    without = [{"text": row["text"], "other": row["other"]} for row in toy_tasks._documents()["test"]]
    lost = toy_tasks.inline_task(
        "loglikelihood", custom_dataset=lambda **_: {"test": datasets.Dataset.from_list(without)}
    )
    arguments = {"pretrained": str(saved("qwen2")), "neurons": str(neuron_path("qwen2"))}
    with pytest.raises(AmplifyError, match="task 'toy_loglikelihood' has no language: .*give language=<code>"):
        evaluate("amplified_hf", arguments, [lost])


def test_answers_that_are_not_finite_under_error(lm_eval, tmp_path):
    result = lm_eval(
        "--output_path", tmp_path / "out", operation="set", statistic="one", factor=1e39, on_nonfinite="error"
    )
    assert_one_line(
        result, r"task 'amplify_xcopa_ind_Latn', document \d: the loglikelihood nan is not finite, amplified"
    )
    assert not (tmp_path / "out").exists()


# A language without neurons: no mistake, but said ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_neurons(tmp_path_factory):
    """A file in which Estonian has no neurons."""
    whole, empty = tiny.neurons("qwen2"), tiny.neurons("qwen2", per_layer=0)
    path = tmp_path_factory.mktemp("empty") / "n.safetensors"
    write_neurons(NeuronFile(whole.manifest, whole.neurons | {"est_Latn": empty.neurons["est_Latn"]}), path)
    return str(path)


def test_a_language_without_neurons_runs_unamplified_and_is_named(lm_eval, evaluate, saved, without_neurons, caplog):
    line = "est_Latn: no neuron to amplify in layers=all of the neuron file"
    assert lm_eval("--limit", 1, neurons=without_neurons, language="est_Latn")[0] == 0
    assert line in caplog.text
    caplog.clear()
    arguments = {"pretrained": str(saved("qwen2"))}
    given = arguments | {"neurons": without_neurons, "language": "est_Latn", "scorer": "stock"}
    ours = evaluate("amplified_hf", given, toys())
    assert line in caplog.text
    assert samples(ours) == samples(evaluate("hf", arguments, toys()))
    model = tiny.model("qwen2")
    with Amplifier(model, read_neurons(without_neurons), Intervention()).amplified("est_Latn"):
        assert not any(module._forward_hooks for module in model.modules())


# Offloaded layers -------------------------------------------------------------------------------------------------


def test_layers_that_are_offloaded_are_amplified_by_hooks_and_folding_them_is_refused(
    lm_eval, evaluate, saved, neuron_path, tmp_path
):
    arguments = {"pretrained": str(saved("qwen2")), "neurons": str(neuron_path("qwen2"))}
    arguments |= {"operation": "scale", "factor": 3}
    offloaded = {"parallelize": True, "max_cpu_memory": "60KB", "offload_folder": str(tmp_path / "offload")}
    message = "mode=fold: .* cannot be folded: .*offloaded.*; use mode=hook"
    assert_one_line(lm_eval(**arguments, **offloaded, mode="fold"), message)
    with pytest.raises(AmplifyError, match=message):
        evaluate("amplified_hf", arguments | offloaded | {"mode": "fold"}, toys("loglikelihood"))
    lm = AmplifiedHFLM(**arguments, **offloaded, device="cpu", batch_size=4)
    assert all(block.weight.is_meta for name, block in lm.model.named_modules() if name.endswith("down_proj"))
    assert lm.amplifier.mode == "hook"
    tasks = toys("loglikelihood", "generate_until")
    in_memory = samples(evaluate("amplified_hf", arguments | {"mode": "hook"}, tasks))
    assert samples(evaluate(lm, None, tasks)) == in_memory

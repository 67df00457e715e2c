"""A baked checkpoint, loaded by whatever loads checkpoints, is the amplified model."""

from __future__ import annotations

import errno
import filecmp
import itertools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import bakeable
import numpy as np
import pytest
import torch
import transformers
import yaml
from conftest import REPOSITORY
from harness_runs import assert_same_answers, samples, toys
from safetensors import safe_open
from safetensors.torch import save_file

from lm_eval_amplify import Amplifier, Intervention, bake, cli, read_neurons, write_neurons
from lm_eval_amplify.baking.checkpoint import open_checkpoint
from lm_eval_amplify.baking.inverse import inverse
from lm_eval_amplify.baking.tensor_files import stored_tensors
from lm_eval_amplify.errors import ArchitectureError
from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile

SET, ADD, SCALE = Intervention("set", 1.5), Intervention("add", -0.75), Intervention("scale", 2.5)
BOTH = Intervention("set", 1.0, others_operation="add", others_factor=0.5)
MIXED = Intervention("add", 2.0, others_operation="scale", others_factor=-1.0, layers="1-2")
ZERO = Intervention("set", 0.0)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Models of each family in float32, saved once."""
    folders: dict[str, Path] = {}

    def saved(family: str) -> Path:
        if family not in folders:
            folders[family] = bakeable.save(family, tmp_path_factory.mktemp("models") / "model")
        return folders[family]

    return saved


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 2e-5) -> bool:
    assert torch.isfinite(other).all()
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


@pytest.mark.parametrize(
    ("family", "interventions"),
    [
        ("llama", (SET, ADD, SCALE, BOTH, MIXED, ZERO)),
        ("llama with biases", (SET, ADD, MIXED)),
        ("qwen2", (SET, ADD, SCALE, BOTH)),
        ("mistral", (SET, ADD)),
        ("seed_oss", (BOTH,)),
        ("gpt2", (SET, ADD, SCALE, BOTH)),
        ("bloom", (SET, ADD, SCALE)),
        ("opt", (BOTH,)),
        ("gemma2", (SCALE, ZERO)),
        ("phi3", (SCALE,)),
        ("t5", (SCALE,)),
    ],
)
def test_the_plain_forward_of_a_baked_checkpoint_is_the_hooked_models(original, tmp_path, family, interventions):
    model, content = bakeable.load(original(family)), bakeable.neurons_of(family)
    plain = bakeable.logits(model)
    for number, intervention in enumerate(interventions):
        out = tmp_path / str(number)
        baked = bake(str(original(family)), content, out, language="ind_Latn", intervention=intervention)
        expected = bakeable.hooked(model, content, intervention, "ind_Latn")
        assert not close(plain, expected, 1e-2)
        assert close(bakeable.logits(bakeable.load(out)), expected)
        assert baked.folder == out
        assert baked.rounding < 1e-6


def test_neurons_of_two_languages_are_united_and_one_of_both_is_changed_once(original, tmp_path):
    content = bakeable.neurons_of("llama")
    own, other = content.neurons["ind_Latn"], content.neurons["est_Latn"]
    shared = set(zip(own.layer, own.index, strict=True)) & set(zip(other.layer, other.index, strict=True))
    assert shared
    baked = bake(str(original("llama")), content, tmp_path / "out", language="ind_Latn+est_Latn", intervention=ADD)
    assert baked.number_of_neurons == len(own) + len(other) - len(shared)
    expected = bakeable.hooked(bakeable.load(original("llama")), content, ADD, "ind_Latn", "est_Latn")
    assert close(bakeable.logits(bakeable.load(tmp_path / "out")), expected)


def test_through_the_harness_hf_answers_for_a_baked_checkpoint_as_amplified_hf_does(
    original, evaluate, tmp_path, subtests
):
    content = bakeable.neurons_of("qwen2")
    write_neurons(content, tmp_path / "neurons.safetensors")
    for intervention in (SET, ADD, SCALE):
        with subtests.test(intervention.operation):
            out = tmp_path / intervention.operation
            bake(
                str(original("qwen2")),
                tmp_path / "neurons.safetensors",
                out,
                language="ind_Latn",
                intervention=intervention,
            )
            arguments = f"neurons={tmp_path / 'neurons.safetensors'},pretrained={original('qwen2')},language=ind_Latn"
            arguments += f",operation={intervention.operation},factor={intervention.factor},mode=hook"
            amplified = samples(evaluate("amplified_hf", arguments, toys()))
            baked = samples(evaluate("hf", f"pretrained={out}", toys()))
            assert set(baked) == set(amplified)
            for task, answers in amplified.items():
                assert_same_answers(baked[task], answers)


def test_greedy_generation_of_a_baked_checkpoint_is_the_hooked_models(original, tmp_path):
    content = bakeable.neurons_of("mistral")
    bake(str(original("mistral")), content, tmp_path / "out", language="ind_Latn", intervention=SET)
    options = {"attention_mask": torch.ones_like(bakeable.IDS), "max_new_tokens": 12, "do_sample": False}
    model = bakeable.load(original("mistral"))
    with Amplifier(model, content, SET).amplified("ind_Latn"):
        expected = model.generate(bakeable.IDS, **options)
    assert expected.shape[1] > bakeable.IDS.shape[1] + 3
    assert torch.equal(bakeable.load(tmp_path / "out").generate(bakeable.IDS, **options), expected)


def test_baked_twice_gives_the_same_bytes(original, tmp_path):
    for out in ("one", "other"):
        bake(
            str(original("qwen2")), bakeable.neurons_of("qwen2"), tmp_path / out, language="ind_Latn", intervention=BOTH
        )
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) > 5
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", names, shallow=False) == (names, [], [])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_types_a_baked_checkpoint_is_as_near_to_the_exact_one_as_the_hooked_model(tmp_path, dtype, subtests):
    folder, content = bakeable.save("qwen2", tmp_path / "model", dtype=dtype), bakeable.neurons_of("qwen2")
    exact, half = bakeable.load(folder, dtype=torch.float32), bakeable.load(folder, dtype=dtype)
    for intervention in (SET, ADD, SCALE):
        with subtests.test(intervention.operation):
            out = tmp_path / intervention.operation
            baked = bake(str(folder), content, out, language="ind_Latn", intervention=intervention)
            loaded = bakeable.load(out)
            assert loaded.dtype == dtype
            wanted = bakeable.hooked(exact, content, intervention, "ind_Latn")
            by_hook = (bakeable.hooked(half, content, intervention, "ind_Latn") - wanted).abs().mean()
            by_bake = (bakeable.logits(loaded) - wanted).abs().mean()
            assert by_bake <= 1.5 * by_hook
            # Half a unit in the last place of the bias; SiLU makes at most 1.28 times as much of it.
            assert baked.rounding <= 1.28 * torch.finfo(dtype).eps / 2
            assert (baked.rounding > 0) == (intervention.operation != "scale")


def test_networks_grow_by_the_largest_number_added_in_a_layer_rounded_up(original, tmp_path):
    content = bakeable.neurons_of("qwen2")
    most = int(content.neurons["ind_Latn"].per_layer(bakeable.LAYERS).max())
    for multiple, expected in ((1, bakeable.D_FF + most), (7, -(-(bakeable.D_FF + most) // 7) * 7)):
        out = tmp_path / str(multiple)
        arguments = {"language": "ind_Latn", "intervention": ADD, "multiple_of": multiple}
        assert bake(str(original("qwen2")), content, out, **arguments).intermediate_size == expected
        assert transformers.AutoConfig.from_pretrained(out).intermediate_size == expected
    first = bakeable.load(out).model.layers[0].mlp  # no neuron of the language is in it
    assert not first.gate_proj.weight[bakeable.D_FF :].any()
    assert not first.up_proj.weight[bakeable.D_FF :].any()
    assert not first.down_proj.weight[:, bakeable.D_FF :].any()


def test_what_baking_does_not_concern_is_copied_bit_for_bit(original, tmp_path):
    source = original("qwen2")
    bake(str(source), bakeable.neurons_of("qwen2"), tmp_path / "out", language="ind_Latn", intervention=SCALE)
    before = {name: tensor for path in source.glob("*.safetensors") for name, tensor in stored_tensors(path).items()}
    after = {}
    for path in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(path, "pt") as file:  # the library accepts it
            after |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(after[name], before[name].read())}
    assert changed == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (1, 2)}
    same = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    assert filecmp.cmpfiles(source, tmp_path / "out", same, shallow=False) == (same, [], [])
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index == json.loads((source / "model.safetensors.index.json").read_text())


def test_where_the_kernel_cannot_copy_or_stops_half_way_the_bytes_are_the_same(original, tmp_path, monkeypatch):
    arguments = {"language": "ind_Latn", "intervention": ADD}
    bake(str(original("qwen2")), bakeable.neurons_of("qwen2"), tmp_path / "by kernel", **arguments)
    monkeypatch.setattr("lm_eval_amplify.baking.tensor_files._BLOCK", 1000)
    kernels, calls = os.copy_file_range, itertools.count()

    def half_way(source, out, count, start):
        if next(calls) % 2:
            raise OSError(errno.EXDEV, "not between these two")
        return kernels(source, out, count // 2, start)

    monkeypatch.setattr(os, "copy_file_range", half_way)
    bake(str(original("qwen2")), bakeable.neurons_of("qwen2"), tmp_path / "half", **arguments)
    monkeypatch.delattr(os, "copy_file_range")
    bake(str(original("qwen2")), bakeable.neurons_of("qwen2"), tmp_path / "without", **arguments)
    for path in (tmp_path / "by kernel").glob("*.safetensors"):
        for other in ("half", "without"):
            assert filecmp.cmp(path, tmp_path / other / path.name, shallow=False)


def test_a_tensor_that_changes_and_moves_to_another_file_is_in_one_file_only(original, tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_bytes((original("llama with biases") / "config.json").read_bytes())
    weights = bakeable.load(original("llama with biases")).state_dict()
    files = {"biases.safetensors": {}, "weights.safetensors": {}}
    for name, tensor in weights.items():
        files["biases.safetensors" if name.endswith("bias") else "weights.safetensors"][name] = tensor
    index = {"metadata": {}, "weight_map": {name: file for file, own in files.items() for name in own}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    for file, own in files.items():
        save_file(own, source / file)
    content = bakeable.neurons_of("llama with biases")
    bake(str(source), content, tmp_path / "out", language="ind_Latn", intervention=ADD)
    names = [name for file in files for name in stored_tensors(tmp_path / "out" / file)]
    assert sorted(names) == sorted(weights)
    expected = bakeable.hooked(bakeable.load(source), content, ADD, "ind_Latn")
    assert close(bakeable.logits(bakeable.load(tmp_path / "out")), expected)


def test_a_folders_identity_changes_with_its_weights(original, tmp_path):
    copy = Path(shutil.copytree(original("llama"), tmp_path / "model"))
    before = open_checkpoint(str(copy)).identity
    assert before == open_checkpoint(str(original("llama"))).identity
    tensor = open_checkpoint(str(copy)).tensors["model.layers.1.mlp.up_proj.weight"]
    with tensor.path.open("r+b") as file:
        file.seek(tensor.start + 2)
        file.write(b"\x7f")
    assert open_checkpoint(str(copy)).identity != before


def test_a_qwen2_baked_into_a_llama_keeps_tokens_chat_template_and_what_generation_uses(original, tmp_path):
    source, out = original("qwen2"), tmp_path / "out"
    bake(str(source), bakeable.neurons_of("qwen2"), out, language="ind_Latn", intervention=SET)
    config = transformers.AutoConfig.from_pretrained(out)
    assert config.architectures == ["LlamaForCausalLM"]
    assert (config.attention_bias, config.mlp_bias, config.tie_word_embeddings) == (True, True, True)
    assert config.rope_parameters["rope_theta"] == 1e6
    assert json.loads((out / "config.json").read_text())["rope_theta"] == 1e6  # for engines of before
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (source, out))
    text = "The 1234 dogs\n\ncan't, 那个男人 seetõttu  x"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    chat = [{"role": "user", "content": text}]
    assert after.apply_chat_template(chat, tokenize=False) == before.apply_chat_template(chat, tokenize=False)
    assert filecmp.cmp(source / "generation_config.json", out / "generation_config.json", shallow=False)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    model = bakeable.load(out)
    assert index["metadata"]["total_parameters"] == sum(one.numel() for one in model.parameters())


def test_a_single_file_and_a_base_models_names_are_baked_too(tmp_path):
    torch.manual_seed(0)
    model = bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(bakeable.CONFIGS["qwen2"]()))
    model.model.save_pretrained(tmp_path / "model")  # as layers.0..., without the head, which is tied
    content = bakeable.neurons_of("qwen2")
    assert "layers.0.mlp.down_proj.weight" in stored_tensors(tmp_path / "model" / "model.safetensors")
    for intervention in (SCALE, SET):
        out = tmp_path / intervention.operation
        bake(str(tmp_path / "model"), content, out, language="ind_Latn", intervention=intervention)
        expected = bakeable.hooked(model, content, intervention, "ind_Latn")
        assert close(bakeable.logits(bakeable.load(out)), expected)


def test_the_card_says_how_the_checkpoint_was_made(original, tmp_path, monkeypatch):
    source = tmp_path / "model"
    source.mkdir()
    for path in original("llama").iterdir():
        (source / path.name).symlink_to(path)
    (source / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Mine\n")
    write_neurons(bakeable.neurons_of("llama"), tmp_path / "neurons.safetensors")
    command = f"bake --model {source} --neurons {tmp_path}/neurons.safetensors --language ind_Latn --operation add"
    command += " --factor 2.0 --others-operation scale --others-factor 0.5 --layers 1-2 --multiple-of 8"
    monkeypatch.setattr("sys.argv", ["lm-eval-amplify", *command.split(), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0"
    neurons = read_neurons(tmp_path / "neurons.safetensors")
    assert front["amplify"]["neurons"] == f"sha256:{neurons.sha256}"
    assert front["amplify"]["signature"] in card
    assert (
        "|language:ind_Latn|operation:add|factor:2.0|statistic:max|others:scale*0.5|" in front["amplify"]["signature"]
    )
    # The command in it gives the same checkpoint.
    (line,) = [line.strip() for line in card.splitlines() if "lm-eval-amplify bake" in line]
    monkeypatch.setattr("sys.argv", shlex.split(line.replace(" DIR", f" {tmp_path / 'again'}")))
    with pytest.raises(SystemExit):
        cli.main()
    for path in (tmp_path / "out").iterdir():
        assert filecmp.cmp(path, tmp_path / "again" / path.name, shallow=False), path.name


def test_the_command_says_what_it_did(original, tmp_path, monkeypatch, capsys):
    write_neurons(bakeable.neurons_of("llama"), tmp_path / "neurons.safetensors")
    argv = ["lm-eval-amplify", "bake", "--model", str(original("llama")), "--out", str(tmp_path / "out")]
    argv += ["--neurons", str(tmp_path / "neurons.safetensors"), "--language", "Indonesian", "--operation", "add"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert f"{len(bakeable.neurons_of('llama').neurons['ind_Latn'])} neurons" in said
    assert "64 neurons a layer" in said
    assert "signature: model:sampled:" in said
    assert f"pretrained={tmp_path / 'out'}" in said


def test_a_model_of_the_hub_is_named_by_its_commit(original, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--org--tiny"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    for path in original("llama").iterdir():
        (cached / "snapshots" / commit / path.name).symlink_to(path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    content = bakeable.neurons_of("llama")
    baked = bake("org/tiny", content, tmp_path / "out", language="ind_Latn", intervention=SCALE)
    assert baked.signature.startswith(f"model:commit:{commit[:12]}|")
    assert yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---\n")[1])["base_model"] == "org/tiny"
    expected = bakeable.hooked(bakeable.load(original("llama")), content, SCALE, "ind_Latn")
    assert close(bakeable.logits(bakeable.load(tmp_path / "out")), expected)


def test_an_intervention_that_changes_nothing_bakes_the_original_and_says_so(original, tmp_path):
    content = bakeable.neurons_of("qwen2")
    for number, intervention in enumerate((Intervention("scale", 1.0), Intervention("set", layers="0"))):
        out = tmp_path / str(number)
        baked = bake(str(original("qwen2")), content, out, language="ind_Latn", intervention=intervention)
        assert "original" in baked.warnings[0]
        assert torch.equal(bakeable.logits(bakeable.load(out)), bakeable.logits(bakeable.load(original("qwen2"))))


def test_neurons_of_another_model_are_baked_with_a_warning(original, tmp_path):
    plain = bakeable.neurons_of("llama")
    content = NeuronFile(plain.manifest.model_copy(update={"model": "org/base"}), plain.neurons)
    baked = bake(str(original("llama")), content, tmp_path / "out", language="ind_Latn", intervention=SCALE)
    assert "found in org/base" in baked.warnings[0]
    assert "|neurons_of:org/base|" in baked.signature


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "mish"])
def test_the_inverse_of_an_activation_gives_back_the_value(name):
    activation = transformers.activations.ACT2FN[name]
    values = torch.logspace(-12, 12, 97, dtype=torch.float64)
    found = activation(inverse(activation, values))
    torch.testing.assert_close(found, values, rtol=1e-12, atol=0)


def test_the_inverse_is_nan_where_an_activation_has_a_value_nowhere():
    values = torch.tensor([0.25, 0.75, 2.0], dtype=torch.float64)
    assert inverse(torch.sigmoid, values).isnan().tolist() == [True, False, True]


def test_a_constant_below_the_activations_minimum_is_its_opposite_with_the_column_turned(original, tmp_path):
    index, layer = np.array([4, 9], np.int32), np.array([1, 2], np.int32)
    own = LanguageNeurons(layer, index, {"max": np.array([-7.5, -0.1], np.float32)})
    manifest = bakeable.neurons_of("llama").manifest
    content = NeuronFile(manifest, {"ind_Latn": own, "est_Latn": own})
    model = bakeable.load(original("llama"))
    for intervention in (Intervention("set"), Intervention("add")):
        out = tmp_path / intervention.operation
        bake(str(original("llama")), content, out, language="ind_Latn", intervention=intervention)
        expected = bakeable.hooked(model, content, intervention, "ind_Latn")
        assert close(bakeable.logits(bakeable.load(out)), expected)


def test_a_sliding_window_is_refused_where_it_is_in_use_and_only_there(tmp_path):
    for window, name in ((32, "in use"), (64, "as wide as the model's positions")):
        config = bakeable.CONFIGS["mistral"]()
        config.sliding_window = window
        model = bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config))
        model.save_pretrained(tmp_path / name)
        arguments = {"language": "ind_Latn", "intervention": SET}
        if window == 32:
            with pytest.raises(ArchitectureError, match="within sliding windows of 32 tokens"):
                bake(str(tmp_path / name), bakeable.neurons_of("mistral"), tmp_path / "out", **arguments)
        else:
            bake(str(tmp_path / name), bakeable.neurons_of("mistral"), tmp_path / "out", **arguments)
            expected = bakeable.hooked(model, bakeable.neurons_of("mistral"), SET, "ind_Latn")
            assert close(bakeable.logits(bakeable.load(tmp_path / "out")), expected)


def test_the_example_of_the_page_about_baking_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "baking.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/baking.md", "exec"), {})
    assert "|language:ind_Latn|operation:set|" in capsys.readouterr().out
    tokenizer, model = transformers.AutoTokenizer.from_pretrained("babel-indonesian"), bakeable.load("babel-indonesian")
    assert tokenizer.decode(tokenizer("abc")["input_ids"]).strip() == "abc"
    assert torch.isfinite(bakeable.logits(model)).all()

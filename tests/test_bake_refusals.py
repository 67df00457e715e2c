"""What cannot be baked is refused in one line, and leaves nothing behind."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import bakeable
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from lm_eval_amplify import Intervention, bake, cli, write_neurons
from lm_eval_amplify.baking.writing import check_space
from lm_eval_amplify.errors import (
    AmplifyError,
    ArchitectureError,
    CheckpointError,
    InterventionError,
    LanguageError,
    NeuronFileError,
)
from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile

SET, SCALE = Intervention("set", 1.5), Intervention("scale", 2.5)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return bakeable.save("llama", tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def copy(llama, tmp_path) -> Path:
    """A copy of the model to spoil."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def baking(model, out, content=None, intervention=SET, **options):
    return bake(
        str(model),
        content or bakeable.neurons_of("llama"),
        out,
        language="ind_Latn",
        intervention=intervention,
        **options,
    )


def assert_refused(error: type[AmplifyError], message: str, model, out, *arguments, **options) -> None:
    before = set(out.parent.iterdir()) if out.parent.is_dir() else None
    with pytest.raises(error, match=message) as refused:
        baking(model, out, *arguments, **options)
    assert "\n" not in str(refused.value)
    if before is not None:
        assert set(out.parent.iterdir()) == before


def test_an_output_folder_that_exists_or_is_the_model_or_has_no_parent(llama, tmp_path):
    (tmp_path / "there").mkdir()
    assert_refused(CheckpointError, "there: it exists; give the path of a new folder", llama, tmp_path / "there")
    assert_refused(CheckpointError, "is the model's own folder", llama, llama)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert_refused(CheckpointError, "link: it exists", llama, tmp_path / "link")
    assert_refused(CheckpointError, "there is no folder .*nothing", llama, tmp_path / "nothing" / "out")
    (tmp_path / "file").touch()
    assert_refused(CheckpointError, "there is no folder .*file", llama, tmp_path / "file" / "out")


@pytest.mark.parametrize("limit", [0, 6_000])
def test_a_disk_that_takes_no_more_leaves_nothing_behind(llama, tmp_path, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        assert_refused(CheckpointError, "cannot bake into .*out: File too large", llama, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_with_too_little_space_is_seen_before_anything_is_written(tmp_path):
    check_space(tmp_path, 1)
    with pytest.raises(OSError, match=r"1000000000\.0 GB are needed, \d"):
        check_space(tmp_path, 10**18)


def test_an_interrupt_leaves_nothing_behind(llama, tmp_path):
    def interrupt(_stage, done, total):
        assert [path.name[:5] for path in tmp_path.iterdir()] == [".out."]
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        baking(llama, tmp_path / "out", report=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_to_the_last_byte(llama, tmp_path):
    seen = []
    baking(llama, tmp_path / "out", report=lambda stage, done, total: seen.append((stage, done, total)))
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    stage, done, total = seen[-1]
    assert stage == "bake"
    assert done == total
    assert 0.8 * size < total < size  # but for the headers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--operation", "sett"], r"operation=sett \(did you mean 'set'\?\): expected set, add, scale"),
        (["--language", "indonesia"], "did you mean 'Indonesian'"),
        (["--statistic", "maks"], "no statistic 'maks'"),
        (["--layers", "7"], "layer 7 is out of range"),
        (["--preset", "paper_10p"], "a checkpoint acts at all positions and knows no statistics of its input"),
        (["--preset", "paper_zero", "--factor", "2"], "leave factor out"),
        (["--factor", "nan"], "factor=nan: expected a finite number"),
        (["--model", "nothing"], "no model 'nothing': expected a folder, or org/repo on the Hub"),
        (["--model", "org/nothing"], "cannot get model 'org/nothing': "),
        (["--revision", "main"], "only a model of the Hub has revisions"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(llama, tmp_path, monkeypatch, capsys, options, message):
    import re

    write_neurons(bakeable.neurons_of("llama"), tmp_path / "neurons.safetensors")
    argv = ["lm-eval-amplify", "bake", "--model", str(llama), "--neurons", str(tmp_path / "neurons.safetensors")]
    argv += ["--language", "ind_Latn", "--out", str(tmp_path / "out"), *options]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.match(f"lm-eval-amplify: error: .*{message}", line), line
    assert not (tmp_path / "out").exists()


def test_a_gated_model_that_llama_cannot_express_is_refused_with_the_reason(tmp_path):
    content = bakeable.neurons_of("gemma2")
    bakeable.save("gemma2", tmp_path / "gemma2")
    reason = "Gemma2ForCausalLM.* it has weights that Llama has no place for .model.layers.0.pre_feedforward_layernorm"
    for operation in ("set", "add"):
        assert_refused(
            ArchitectureError, reason, tmp_path / "gemma2", tmp_path / "out", content, Intervention(operation, 1.5)
        )


def test_a_model_with_llamas_weights_that_computes_something_else_is_refused(tmp_path):
    shared = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": bakeable.D_FF, "num_attention_heads": 4}
    config = transformers.GraniteConfig(**shared, num_hidden_layers=bakeable.LAYERS, residual_multiplier=0.5)
    bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config)).save_pretrained(tmp_path / "granite")
    assert_refused(ArchitectureError, "computes something else than Llama", tmp_path / "granite", tmp_path / "out")


def test_a_model_that_is_llama_at_early_positions_only_is_refused(tmp_path):
    shared = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": bakeable.D_FF, "num_attention_heads": 4}
    config = transformers.Ministral3Config(
        **shared,
        num_hidden_layers=bakeable.LAYERS,
        head_dim=8,
        sliding_window=None,
        max_position_embeddings=256,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "llama_4_scaling_beta": 0.1,
        },
    )
    model = bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config))
    model.save_pretrained(tmp_path / "model")
    assert_refused(ArchitectureError, "computes something else than Llama", tmp_path / "model", tmp_path / "out")


def test_a_plain_network_without_a_bias_is_refused(tmp_path):
    shared = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": bakeable.D_FF, "num_attention_heads": 4}
    config = transformers.NemotronConfig(**shared, num_hidden_layers=bakeable.LAYERS, num_key_value_heads=4)
    model = bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config))
    model.save_pretrained(tmp_path / "nemotron")
    content = bakeable.neurons_of("llama")
    assert_refused(
        ArchitectureError,
        "a constant needs a bias in its down projections",
        tmp_path / "nemotron",
        tmp_path / "out",
        content,
    )
    baking(tmp_path / "nemotron", tmp_path / "out", content, SCALE)
    expected = bakeable.hooked(model, content, SCALE, "ind_Latn")
    torch.testing.assert_close(bakeable.logits(bakeable.load(tmp_path / "out")), expected, atol=1e-4, rtol=1e-5)


def test_a_mixture_of_experts_is_refused(copy, tmp_path):
    config = {"model_type": "mixtral", "num_hidden_layers": bakeable.LAYERS, "num_local_experts": 2, "hidden_size": 32}
    config |= {"intermediate_size": bakeable.D_FF, "num_attention_heads": 4, "num_key_value_heads": 2}
    (copy / "config.json").write_text(json.dumps(config))
    assert_refused(ArchitectureError, "mixture of experts", copy, tmp_path / "out", intervention=SCALE)


def test_a_normalisation_before_the_down_projection_is_refused_for_every_operation(tmp_path):
    shared = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": bakeable.D_FF, "num_attention_heads": 4}
    config = transformers.BitNetConfig(**shared, num_hidden_layers=bakeable.LAYERS, num_key_value_heads=4)
    bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config)).save_pretrained(tmp_path / "bitnet")
    for intervention in (SET, SCALE):
        assert_refused(
            ArchitectureError,
            "ffn_sub_norm lies between its activation and its down projection",
            tmp_path / "bitnet",
            tmp_path / "out",
            intervention=intervention,
        )


def test_a_constant_that_an_activation_never_has_is_refused(tmp_path):
    config = bakeable.CONFIGS["llama"]()
    config.hidden_act = "relu6"
    bakeable.random_weights(transformers.AutoModelForCausalLM.from_config(config)).save_pretrained(tmp_path / "model")
    own = LanguageNeurons(np.array([1], np.int32), np.array([5], np.int32), {"max": np.array([7.5], np.float32)})
    content = NeuronFile(bakeable.neurons_of("llama").manifest, {"ind_Latn": own, "est_Latn": own})
    message = "set 7.5 on neuron 5 of layer 1: the model's activation relu6 is nowhere 7.5"
    assert_refused(InterventionError, message, tmp_path / "model", tmp_path / "out", content, Intervention("set", 1.0))
    baking(tmp_path / "model", tmp_path / "out", content, Intervention("set", 0.5))


@pytest.mark.parametrize("intervention", [Intervention("set", 1e6), Intervention("scale", 1e9)])
def test_a_number_that_the_checkpoints_type_does_not_hold_is_refused(tmp_path, intervention):
    for family in ("qwen2", "gpt2"):
        bakeable.save(family, tmp_path / family, dtype=torch.float16)
        content = bakeable.neurons_of(family)
        message = "type float16 holds 65504 at most, not .*: take a smaller factor"
        assert_refused(CheckpointError, message, tmp_path / family, tmp_path / "out", content, intervention)


@pytest.mark.parametrize("further", [{"positions": "generated"}, {"statistic": "batch_p90"}])
def test_what_depends_on_the_running_input_is_refused(llama, tmp_path, further):
    intervention = Intervention("set", 1.0, **further)
    assert_refused(InterventionError, "a checkpoint acts at all positions", llama, tmp_path / "out", None, intervention)


def test_a_width_that_is_no_number_is_refused(llama, tmp_path):
    assert_refused(InterventionError, "multiple_of=0: expected a whole number", llama, tmp_path / "out", multiple_of=0)


def test_neurons_of_a_model_of_another_shape_are_refused(llama, tmp_path):
    content = bakeable.neurons(bakeable.LAYERS, 56)
    assert_refused(NeuronFileError, "intermediate_size=56, the model has 40", llama, tmp_path / "out", content)


def test_a_language_that_the_file_has_not_is_refused(llama, tmp_path):
    with pytest.raises(LanguageError, match="the neuron file has no language 'tha_Thai'"):
        bake(str(llama), bakeable.neurons_of("llama"), tmp_path / "out", language=["ind_Latn", "tha_Thai"])


def _quantised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))


def _of_integers(folder: Path) -> None:
    shutil.rmtree(folder)
    bakeable.save("llama", folder, files=1)
    save_file(
        {"model.layers.1.mlp.down_proj.weight": torch.zeros(32, 40, dtype=torch.int8)}, folder / "model.safetensors"
    )


def _pickled(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _without_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def _cut(folder: Path) -> None:
    path = max(folder.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def _without_a_shard(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def _index(folder: Path, name: str, file: str) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"][name] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _naming_a_lost_tensor(folder: Path) -> None:
    _index(folder, "model.lost", next(folder.glob("*.safetensors")).name)


def _naming_a_file_elsewhere(folder: Path) -> None:
    shutil.copy(next(folder.glob("*.safetensors")), folder.parent / "x.safetensors")
    _index(folder, "model.lost", "../x.safetensors")


def _of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def _without_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def _of_unknown_code(folder: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_quantised, "is quantised .gptq., its weights cannot be changed exactly: bake the original"),
        (_of_integers, "is of type I8, expected one of F16, BF16, F32, F64"),
        (_pickled, "has its weights in pytorch_model.bin, expected .*save_pretrained"),
        (_without_weights, "has no weights: expected model.safetensors"),
        (_cut, "cannot read .*safetensors: "),
        (_without_a_shard, "names .*, which is not there: get the model again"),
        (_naming_a_lost_tensor, "names model.lost, which its file does not have"),
        (_naming_a_file_elsewhere, "names files outside the folder"),
        (_of_another_width, "is of shape .* expected .*64"),
        (_without_configuration, "cannot read .*config.json: No such file"),
        (_of_unknown_code, "transformers cannot build .*model"),
    ],
)
def test_a_checkpoint_that_cannot_be_baked_is_refused_with_what_to_do(copy, tmp_path, spoil, message):
    spoil(copy)
    assert_refused(CheckpointError, message, copy, tmp_path / "out", intervention=SCALE)

"""Models spread over devices and folders: what is changed follows its layer, and offloaded weights are never folded."""

from __future__ import annotations

import accelerate
import matrix
import pytest
import tiny
import torch
from lm_eval.api.instance import Instance

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import ArchitectureError
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models.hf import AmplifiedHFLM

INTERVENTIONS = [Intervention("set", 1.5, "max"), Intervention("add", -0.75, "max"), Intervention("scale", 2.5)]
PARTS = (
    "model.embed_tokens",
    *(f"model.layers.{k}" for k in range(tiny.LAYERS)),
    "model.norm",
    "model.rotary_emb",
    "lm_head",
)


def to_cpu(model, folder):
    """Weights wait on the CPU and are brought to the device, here the CPU too, for each module's run."""
    return accelerate.cpu_offload(model, execution_device=torch.device("cpu"))


def to_disk(model, folder):
    return accelerate.disk_offload(model, folder, execution_device=torch.device("cpu"))


def partly(model, folder):
    """As ``device_map=auto`` does where memory does not suffice: the last layer on disk."""
    places = dict.fromkeys(PARTS, "cpu") | {f"model.layers.{tiny.LAYERS - 1}": "disk"}
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder)


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=str)
@pytest.mark.parametrize("offload", [to_cpu, to_disk, partly])
def test_an_offloaded_model_is_amplified_as_one_in_memory(offload, intervention, tmp_path):
    content = tiny.neurons("llama")
    model = tiny.model("llama")
    with Amplifier(model, content, intervention, mode="hook").amplified("ind_Latn"):
        expected = matrix.logits(model)
    model = offload(model, tmp_path)
    assert any(parameter.is_meta for parameter in model.parameters())
    plain = matrix.logits(model)
    amplifier = Amplifier(model, content, intervention)
    assert amplifier.mode == "hook"
    with amplifier.amplified("ind_Latn"):
        assert torch.equal(matrix.logits(model), expected)
    assert torch.equal(matrix.logits(model), plain)


@pytest.mark.parametrize("offload", [to_cpu, to_disk, partly])
def test_folding_an_offloaded_model_is_refused(offload, tmp_path):
    model = offload(tiny.model("llama"), tmp_path)
    layer = tiny.LAYERS - 1 if offload is partly else 0
    with pytest.raises(
        ArchitectureError,
        match=rf"mode=fold: model.layers.{layer}.mlp cannot be folded: its down projection's weight is offloaded; use",
    ):
        Amplifier(model, tiny.neurons("llama"), Intervention("scale", 2), mode="fold")


def test_a_model_merely_placed_on_devices_is_folded():
    content = tiny.neurons("llama")
    model = tiny.model("llama")
    with Amplifier(model, content, Intervention("scale", 2), mode="hook").amplified("ind_Latn"):
        expected = matrix.logits(model)
    model = accelerate.dispatch_model(model, dict.fromkeys(PARTS, "cpu"), main_device="cpu", force_hooks=True)
    assert hasattr(model.model.layers[0].mlp.down_proj, "_hf_hook")
    plain = matrix.logits(model)
    with Amplifier(model, content, Intervention("scale", 2), mode="fold").amplified("ind_Latn"):
        assert matrix.close(matrix.logits(model), expected, 2e-5)
    assert torch.equal(matrix.logits(model), plain)


def test_a_model_loaded_onto_a_device_map_is_folded(saved):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(saved("llama"), device_map="cpu").eval()
    assert Amplifier(model, tiny.neurons("llama"), Intervention("scale", 2)).mode == "fold"


def test_neurons_are_identified_in_an_offloaded_model(tmp_path):
    model = tiny.model("llama")
    blocks = Network(model).blocks
    expected = matrix.counts(model, blocks)
    assert all(
        torch.equal(one, expected[layer]) for layer, one in matrix.counts(to_disk(model, tmp_path), blocks).items()
    )


def harness_model(folder, offload_folder, **arguments):
    places = dict.fromkeys(PARTS, "cpu") | {f"model.layers.{tiny.LAYERS - 1}": "disk"}
    return AmplifiedHFLM(
        str(folder), parallelize=True, device_map=places, offload_folder=str(offload_folder), device="cpu",
        neurons=tiny.neurons("llama"), language="ind_Latn", **arguments,
    )  # fmt: skip


def test_the_harness_runs_an_offloaded_model_as_one_in_memory(saved, tmp_path):
    requests = [
        Instance("loglikelihood", {}, ("Pria itu membuka", continuation), 0, ("t", 0, 1))
        for continuation in (" keran", " kraani, seetõttu")
    ]
    lm = harness_model(saved("llama"), tmp_path, operation="set", factor=2.0)
    assert any(parameter.is_meta for parameter in lm.model.parameters())
    in_memory = AmplifiedHFLM(
        str(saved("llama")), device="cpu", neurons=tiny.neurons("llama"), language="ind_Latn", factor=2.0
    )
    assert lm.loglikelihood(requests, disable_tqdm=True) == in_memory.loglikelihood(requests, disable_tqdm=True)


def test_the_harness_is_told_that_an_offloaded_model_cannot_be_folded(saved, tmp_path):
    with pytest.raises(ArchitectureError, match=r"cannot be folded: .*weight is offloaded; use mode=hook"):
        harness_model(saved("llama"), tmp_path, operation="scale", factor=2.0, mode="fold")

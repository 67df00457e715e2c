"""A model's feed-forward networks are found, or the model is refused with the reason."""

from __future__ import annotations

import by_hand
import matrix
import peft
import pytest
import tiny
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from torch import nn

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.architecture import FeedForward, find_feed_forwards, fold_obstacle
from lm_eval_amplify.architecture.sites import InputOfDown, OutputOfActivation
from lm_eval_amplify.errors import ArchitectureError
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models.hf import AmplifiedHFLM

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_layer_has_its_feed_forward_network_in_order(family):
    model = tiny.model(family)
    blocks = find_feed_forwards(model)
    assert [block.layer for block in blocks] == list(range(tiny.LAYERS))
    assert {block.d_ff for block in blocks} == {tiny.D_FF[family]}
    for block in blocks:
        children = dict(model.get_submodule(block.name).named_children())
        assert isinstance(block.site, OutputOfActivation)
        assert block.site.activation in children.values()
        assert block.down is children["c_proj" if family == "gpt2" else "down_proj"]
        assert fold_obstacle(block) is None


def test_a_mixture_of_experts_is_refused():
    config = transformers.Qwen2MoeConfig(
        **SMALL, num_experts=2, moe_intermediate_size=8, shared_expert_intermediate_size=8
    )
    with pytest.raises(ArchitectureError, match="Qwen2MoeForCausalLM is a mixture of experts"):
        find_feed_forwards(transformers.AutoModelForCausalLM.from_config(config))


def test_a_dense_model_of_a_family_of_mixtures_is_none():
    config = transformers.GraniteMoeHybridConfig(
        **SMALL, num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=24,
        layer_types=["mamba", "attention"], mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1,
    )  # fmt: skip
    model = transformers.GraniteMoeHybridForCausalLM(config)
    assert [block.name for block in find_feed_forwards(model)] == [f"model.layers.{k}.shared_mlp" for k in range(2)]


def hybrid() -> nn.Module:
    config = transformers.NemotronHConfig(
        **{**SMALL, "num_hidden_layers": 4}, layers_block_type=["mamba", "mlp", "attention", "mlp"],
        head_dim=8, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=1,
    )  # fmt: skip
    return transformers.NemotronHForCausalLM(config).float().eval()


def test_layers_of_a_hybrid_without_a_network_are_not_counted():
    model = hybrid()
    blocks = find_feed_forwards(model)
    assert [(block.layer, block.name) for block in blocks] == [(0, "model.layers.1.mixer"), (1, "model.layers.3.mixer")]
    assert matrix.check_identification(model, blocks) is None


def test_a_layer_with_an_unknown_network_among_known_ones_is_refused():
    model = tiny.model("llama")
    model.model.layers[1].mlp.down_norm = nn.LayerNorm(tiny.D_FF["llama"])
    with pytest.raises(ArchitectureError, match="in 2 of its layers, and what may be another in layer 1"):
        find_feed_forwards(model)


def test_a_network_beside_others_in_a_module_is_refused():
    model = tiny.model("llama")
    for layer in model.model.layers:
        layer.mlp = nn.ModuleDict({"always": layer.mlp, "router": nn.Linear(4, 2)})
    with pytest.raises(ArchitectureError, match=r"besides one in each layer \(model.layers.0.mlp.always"):
        find_feed_forwards(model)


def test_an_encoders_networks_come_before_its_decoders():
    config = transformers.T5Config(
        vocab_size=64, d_model=16, d_ff=24, d_kv=8, num_layers=2, num_decoder_layers=1, num_heads=2
    )
    blocks = find_feed_forwards(transformers.T5ForConditionalGeneration(config))
    assert [(block.layer, block.name.partition(".")[0]) for block in blocks] == [
        (0, "encoder"),
        (1, "encoder"),
        (2, "decoder"),
    ]


def test_neurons_of_an_encoder_decoder_are_not_identified():
    config = transformers.T5Config(vocab_size=64, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2)
    with pytest.raises(ArchitectureError, match="T5ForConditionalGeneration is an encoder-decoder: neurons are"):
        Network(transformers.T5ForConditionalGeneration(config))


def test_a_tower_that_reads_images_has_no_neurons():
    text = {**SMALL, "model_type": "llama"}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 8, "patch_size": 4, "model_type": "clip_vision_model"}  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_id=9)
    )
    assert any("vision_tower" in name for name, _ in model.named_modules())
    assert [block.name for block in find_feed_forwards(model)] == [
        "model.language_model.layers.0.mlp",
        "model.language_model.layers.1.mlp",
    ]


def test_what_normalises_between_activation_and_projection_is_hooked_and_never_folded():
    model = transformers.BitNetForCausalLM(transformers.BitNetConfig(**SMALL)).eval()
    content = matrix.neurons(find_feed_forwards(model))
    assert Amplifier(model, content, Intervention("scale", 2)).mode == "hook"
    with pytest.raises(ArchitectureError, match=r"mode=fold: model.layers.0.mlp cannot .*: ffn_sub_norm lies between"):
        Amplifier(model, content, Intervention("scale", 2), mode="fold")


def test_a_model_without_feed_forward_networks_is_refused():
    with pytest.raises(ArchitectureError, match="Linear .* has no feed-forward network of a known form"):
        find_feed_forwards(nn.Linear(2, 2))
    config = transformers.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(ArchitectureError, match=r"MambaForCausalLM \(model_type mamba\) has no feed-forward network"):
        find_feed_forwards(transformers.MambaForCausalLM(config))


def test_a_gated_network_whose_activation_module_others_use_is_refused():
    model = tiny.model("llama")
    for layer in model.model.layers:
        layer.mlp.act_fn = model.model.layers[0].mlp.act_fn
    with pytest.raises(ArchitectureError, match="shares one activation module"):
        find_feed_forwards(model)


def test_a_plain_network_whose_activation_module_others_use_is_reached_before_its_projection():
    model = tiny.model("gpt2")
    plain = matrix.logits(model)
    blocks = find_feed_forwards(model)
    for layer in model.transformer.h:
        layer.mlp.act = model.transformer.h[0].mlp.act
    shared = find_feed_forwards(model)
    assert all(isinstance(block.site, InputOfDown) for block in shared)
    matrix.check(model, shared, plain)
    assert [block.name for block in blocks] == [block.name for block in shared]


def test_layers_that_share_a_network_are_refused():
    model = tiny.model("llama")
    model.model.layers[2].mlp = model.model.layers[0].mlp
    with pytest.raises(ArchitectureError, match=r"layers that share a feed-forward network|may be another in layer 2"):
        find_feed_forwards(model)


class Quantised(nn.Linear):
    pass


def meta() -> nn.Module:
    return nn.Linear(4, 2, device="meta")


def integer() -> nn.Module:
    linear = nn.Linear(4, 2, bias=False)
    linear.weight = nn.Parameter(torch.zeros(2, 4, dtype=torch.int8), requires_grad=False)
    return linear


def parametrized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))


def sharded() -> nn.Module:
    linear = nn.Linear(4, 2)
    linear.weight = nn.Parameter(torch.zeros(2, 2))
    return linear


def hooked() -> nn.Module:
    linear = nn.Linear(4, 2)
    linear.register_forward_pre_hook(lambda _module, inputs: (inputs[0].round(),))
    return linear


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Quantised(4, 2), "is a test_architectures.Quantised, not a plain linear layer"),
        (meta, "is offloaded"),
        (integer, "of torch.int8, not a plain parameter"),
        (parametrized, "ParametrizedLinear, not a plain linear layer"),
        (sharded, "is not whole here: shape (2, 2) for d_ff=4"),
        (hooked, "forward is changed by a hook"),
    ],
)
def test_a_projection_that_cannot_be_folded_exactly_says_why(make, reason):
    down = make()
    assert reason in str(fold_obstacle(FeedForward(0, "mlp", InputOfDown(down), down, 4)))


def test_tied_projections_are_not_folded():
    model = tiny.model("llama")
    model.model.layers[1].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    assert [fold_obstacle(block) for block in find_feed_forwards(model)] == [
        "its down projection shares its weight",
        "its down projection shares its weight",
        None,
    ]
    assert Amplifier(model, tiny.neurons("llama"), Intervention("scale", 2)).mode == "hook"


@pytest.mark.parametrize(("target", "mode"), [("down_proj", "hook"), ("q_proj", "fold")])
def test_an_adapter_on_the_down_projection_is_hooked(target, mode):
    model = tiny.model("llama")
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=[target], init_lora_weights=False)).eval()
    content = matrix.neurons(find_feed_forwards(adapted))
    amplifier = Amplifier(adapted, content, Intervention("scale", 2))
    assert amplifier.mode == mode
    with amplifier.amplified("ind_Latn"):
        amplified = matrix.logits(adapted)
    if mode == "hook":
        with pytest.raises(ArchitectureError, match=r"layers.0.mlp cannot be folded: .* is a peft\..*\.Linear, not"):
            Amplifier(adapted, content, Intervention("scale", 2), mode="fold")
    merged = adapted.merge_and_unload()
    with Amplifier(merged, content, Intervention("scale", 2), mode="fold").amplified("ind_Latn"):
        assert matrix.close(amplified, matrix.logits(merged), 2e-5)


def test_the_harness_amplifies_encoder_decoders():
    tokenizer = tiny.tokenizer()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=1, pad_token_id=1, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    blocks = find_feed_forwards(model)
    content = matrix.neurons(blocks)
    requests = [
        Instance("loglikelihood", {}, ("Pria itu membuka", continuation), 0, ("t", 0, 1))
        for continuation in (" keran", " kraani, seetõttu")
    ]
    shared = {"tokenizer": tokenizer, "backend": "seq2seq", "device": "cpu"}
    plain = HFLM(model, **shared)
    by_definition = matrix.definition(content.neurons["ind_Latn"], "set", 2.0)
    with by_hand.changed(by_hand.places(model, blocks), by_definition):
        expected = [value for value, _ in plain.loglikelihood(requests, disable_tqdm=True)]
    lm = AmplifiedHFLM(model, neurons=content, language="ind_Latn", factor=2.0, **shared)
    found = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert found != pytest.approx([value for value, _ in plain.loglikelihood(requests, disable_tqdm=True)], abs=1e-2)

"""A model's feed-forward networks are found, or the model is refused with the reason."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from torch import nn

from lm_eval_amplify.architecture import find_feed_forwards, fold_obstacle
from lm_eval_amplify.errors import ArchitectureError

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
        module = model.get_submodule(block.name)
        children = dict(module.named_children())
        assert block.activation in children.values()
        assert block.down is children["c_proj" if family == "gpt2" else "down_proj"]
        assert fold_obstacle(block.down) is None


def test_a_mixture_of_experts_is_refused():
    config = transformers.Qwen2MoeConfig(
        **SMALL, num_experts=2, moe_intermediate_size=8, shared_expert_intermediate_size=8
    )
    with pytest.raises(ArchitectureError, match="Qwen2MoeForCausalLM is a mixture of experts"):
        find_feed_forwards(transformers.AutoModelForCausalLM.from_config(config))


def test_a_feed_forward_network_inside_another_module_is_refused():
    """A shared expert beside fused routed ones looks like the layer's only network."""
    model = tiny.model("llama")
    for layer in model.model.layers:
        layer.mlp = nn.ModuleDict({"shared_expert": layer.mlp})
    with pytest.raises(
        ArchitectureError, match=r"besides one in each decoder layer \(model.layers.0.mlp.shared_expert"
    ):
        find_feed_forwards(model)


def test_an_encoder_decoder_is_refused():
    config = transformers.T5Config(vocab_size=64, d_model=16, d_ff=24, d_kv=8, num_layers=1, num_heads=2)
    with pytest.raises(ArchitectureError, match="T5ForConditionalGeneration is an encoder-decoder"):
        find_feed_forwards(transformers.T5ForConditionalGeneration(config))


def test_a_feed_forward_network_with_something_between_activation_and_projection_is_refused():
    config = transformers.BitNetConfig(**SMALL)  # normalises between the two
    with pytest.raises(ArchitectureError, match="BitNetForCausalLM .* in 0 of 2 layers"):
        find_feed_forwards(transformers.AutoModelForCausalLM.from_config(config))


def test_a_model_without_layers_is_refused():
    with pytest.raises(ArchitectureError, match="Linear .* is not supported"):
        find_feed_forwards(nn.Linear(2, 2))


def test_an_activation_module_that_layers_share_is_refused():
    model = tiny.model("llama")
    for layer in model.model.layers:
        layer.mlp.act_fn = model.model.layers[0].mlp.act_fn
    with pytest.raises(ArchitectureError, match="shares one activation module"):
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


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Quantised(4, 2), "is a Quantised, not a plain linear layer"),
        (meta, "is offloaded"),
        (integer, "of torch.int8, not a plain parameter"),
        (parametrized, "is a ParametrizedLinear, not a plain linear layer"),
    ],
)
def test_a_projection_that_cannot_be_folded_exactly_says_why(make, reason):
    assert reason in str(fold_obstacle(make()))

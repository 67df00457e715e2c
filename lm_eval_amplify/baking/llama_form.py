"""Which models a Llama checkpoint can express, and its configuration: Llama's networks can have biases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import transformers
from torch import nn
from transformers.initialization import no_init_weights

from lm_eval_amplify.baking.checkpoint import Checkpoint
from lm_eval_amplify.baking.network import Network

_BIASES = (
    "self_attn.q_proj.bias",
    "self_attn.k_proj.bias",
    "self_attn.v_proj.bias",
    "self_attn.o_proj.bias",
    "mlp.gate_proj.bias",
    "mlp.up_proj.bias",
    "mlp.down_proj.bias",
)
_WINDOWS = ("sliding_window", "attention_chunk_size")
_TOKENS, _WINDOW = 12, 4


def llama_config(network: Network, checkpoint: Checkpoint, intermediate_size: int) -> dict[str, Any]:
    """Return the content of ``config.json`` with biases in the networks, for a model that Llama can express."""
    if _is_llama(network):
        return {**checkpoint.config, "mlp_bias": True, "intermediate_size": intermediate_size}
    config = _as_llama(network.config, network.model)
    config.intermediate_size = intermediate_size
    content = {name: value for name, value in config.to_dict().items() if value is not None}
    rope = config.rope_parameters
    # What engines read that know the earlier names only.
    content["rope_theta"] = rope["rope_theta"]
    if rope["rope_type"] != "default":
        content["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    type_name = next((name for name in ("torch_dtype", "dtype") if name in checkpoint.config), None)
    content.pop("dtype", None)
    if type_name is not None:
        content[type_name] = checkpoint.config[type_name]
    for name in ("_name_or_path", "id2label", "label2id"):
        content.pop(name, None)
    return json.loads(json.dumps(content))  # type: ignore[no-any-return]  # a plain value


def why_not_llama(network: Network) -> str | None:
    """Return why a model cannot be written as a Llama checkpoint, or None where it can.

    It can if all its weights have a place in Llama, Llama has none besides but biases, which can be zero, and a small
    model of its configuration gives the same logits as a Llama with the same weights.
    """
    if _is_llama(network):
        return None
    try:
        as_llama = _as_llama(network.config, network.model)
        with torch.device("meta"):
            other = transformers.LlamaForCausalLM(as_llama)
    except Exception as error:  # noqa: BLE001  # whatever a configuration of another model makes of it is the answer
        return f"its configuration is none of Llama's ({str(error).strip().partition(chr(10))[0]})"
    own, llamas = _shapes(network.model), _shapes(other)
    besides = [name for name, shape in own.items() if llamas.get(name) != shape]
    if besides:
        more = f" and {len(besides) - 1} more" if len(besides) > 1 else ""
        return f"it has weights that Llama has no place for ({besides[0]}{more})"
    lacking = [name for name in llamas if name not in own and not name.endswith(_BIASES)]
    if lacking:
        return f"it lacks weights that Llama has ({lacking[0]})"
    return _difference(network.config)


def new_biases(network: Network) -> list[str]:
    """Return the biases, by their names in the model, that its Llama form has and it has not itself."""
    own = dict(network.model.named_parameters())
    has_attention = _attention_bias(network.model)
    return [
        f"{block.name.removesuffix('mlp')}{bias}"
        for block in network.blocks
        for bias in _BIASES
        if (has_attention or bias.startswith("mlp")) and f"{block.name.removesuffix('mlp')}{bias}" not in own
    ]


def _is_llama(network: Network) -> bool:
    return type(network.model) is transformers.LlamaForCausalLM


def _as_llama(config: Any, model: nn.Module) -> Any:
    """The Llama configuration with the same fields."""
    known = set(transformers.LlamaConfig().to_dict()) - {"model_type", "transformers_version", "architectures"}
    fields = {name: deepcopy(value) for name, value in config.to_dict().items() if name in known}
    fields |= {"attention_bias": _attention_bias(model), "mlp_bias": True, "architectures": ["LlamaForCausalLM"]}
    return transformers.LlamaConfig(**fields)


def _attention_bias(model: nn.Module) -> bool:
    return any(name.endswith("bias") and ".self_attn." in name for name, _ in model.named_parameters())


def _shapes(model: nn.Module) -> Mapping[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _difference(config: Any) -> str | None:
    """Why a small model of a configuration computes something else than Llama does, or None where it does not."""
    try:
        small = _small(config)
        with no_init_weights():  # each gets weights below
            model = transformers.AutoModelForCausalLM.from_config(small).eval()
            llama = transformers.LlamaForCausalLM(_as_llama(small, model)).eval()
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            parameter.copy_(around + 0.2 * torch.randn(parameter.shape, generator=generator))
        for parameter in llama.parameters():
            parameter.zero_()
        llama.load_state_dict(model.state_dict(), strict=False)
        # Some models treat late positions in another way than early ones.
        for first in (0, max(0, config.max_position_embeddings - _TOKENS)):
            given = {
                "input_ids": torch.arange(_TOKENS).unsqueeze(0),
                "position_ids": torch.arange(first, first + _TOKENS).unsqueeze(0),
            }
            logits, llamas = model(**given).logits, llama(**given).logits
            if not (logits - llamas).abs().max() <= 1e-4 * logits.abs().max():
                return _what_differs(config, small)
    except Exception as error:  # noqa: BLE001  # the same
        return f"a small model of its configuration does not run ({str(error).strip().partition(chr(10))[0]})"
    return None


def _what_differs(config: Any, small: Any) -> str:
    for name in _WINDOWS:
        window = getattr(config, name, None)
        if window != getattr(small, name, None):
            return f"it attends within {name.replace('_', ' ')}s of {window} tokens, which Llama has not"
    return "with the same weights it computes something else than Llama"


def _small(config: Any) -> Any:
    """A configuration that differs in size alone; a window that can matter is smaller than the probe."""
    small = deepcopy(config)
    heads = config.num_attention_heads
    groups = heads // (getattr(config, "num_key_value_heads", None) or heads)
    small.hidden_size = config.hidden_size // heads * 2
    small.num_attention_heads, small.num_key_value_heads = 2, 2 if groups == 1 else 1
    small.intermediate_size, small.vocab_size = 32, _TOKENS
    small.dtype = torch.float32
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(config, name, None) is not None:
            setattr(small, name, 0)
    for name in _WINDOWS:
        window = getattr(config, name, None)
        if window is not None and window < config.max_position_embeddings:
            setattr(small, name, _WINDOW)
    return small

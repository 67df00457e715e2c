"""Every architecture of the installed transformers as a tiny model, built from its configuration by a few rules."""

from __future__ import annotations

import dataclasses
import re
import warnings
from copy import deepcopy
from typing import Any, NamedTuple

import torch
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY, D_FF = 64, 48
MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}

# A field of a configuration whose name matches gets the number, unless it is smaller already.
_SIZES = (
    (r".*vocab_size.*|n_vocab|n_tokens|codebook_size", VOCABULARY),
    (r"first_k_dense_replace|num_dense_layers|\w*sparse_step", 1),
    (r".*(num|n)_\w*layers?|\w*layers|n_layers?|depth|depths|num_\w*blocks", 2),
    (r".*(intermediate|ffn|ff)_?(size|dim|hidden_size)|d_ff|n_inner|dff|(en|de)coder_ffn_dim|mlp_dim", D_FF),
    (r".*(num_key_value_heads|n_kv_heads?|num_kv_heads)", 2),
    (r"rotary_dim", 4),
    (r".*(head_dim|d_kv|attention_head_size|kv_channels)", 8),
    (r".*(attention_heads|num_heads|n_heads?|heads)", 4),
    (r"\w*channels|\w*filters", 32),
    (r"hidden_size|d_model|n_embd|\w*_hidden_size|\w*embed_dim|embedding_size|emb_dim|\w*_?dim", 32),
)

_FULL = {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}

# What the rules do not get right.
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": VOCABULARY},
    "chameleon": {"vocabulary_map": {"<image>": 5}},
    "cohere_compass": {"text_config": _FULL},
    "cohere_compass_text": _FULL,
    "cosmos3_edge": {"text_config": _ROPE},
    "ctrl": {"dff": D_FF},
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"text_config": {"num_key_value_heads": 4}},
    "emu3": {"vocabulary_map": {"<image>": 5, "<|extra_200|>": 6}},
    "ernie4_5_vl_moe": {"text_config": {"moe_intermediate_size": [16, 16]}},
    "flint": {"mlp_only_layers": []},
    "florence2": {"vision_config": {"depths": (1, 1), "embed_dim": (16, 32), "num_heads": (2, 2), "num_groups": (2, 2),
                                    "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
                                    "patch_prenorm": (False, True)}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm46v": {"text_config": _ROPE},
    "glm4v": {"text_config": _ROPE},
    "glm5_next": {"text_config": {"num_key_value_heads": 4}},
    "glm_ocr": {"text_config": _ROPE},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite4_vision": {"deepstack_layer_map": [[0, 0]], "spatial_target_layers": [0], "downsample_rate": "1/2",
                        "vision_config": {"hidden_size": 128}},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl": {"text_config": {"head_dim": 8, **_ROPE}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "lfm3": {"layer_types": ["conv", "full_attention"]},
    "lfm3_vl": {"text_config": {"layer_types": ["conv", "full_attention"]}},
    "minicpm_ocr": {"text_config": {"layer_types": ["linear_attention", "full_attention"]}},
    "minicpm3": {"num_key_value_heads": 4},
    "minicpmv4_6": {"text_config": {"layer_types": ["linear_attention", "full_attention"]}},
    "minicpmv4_7": {"text_config": {"layer_types": ["linear_attention", "full_attention"]}},
    "ministral": {"head_dim": 8},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "muse_spark": {"audio_config": {"num_hidden_layers": 4}},
    "nemotron": {"num_key_value_heads": 4},
    "paddleocr_vl": {"text_config": _ROPE},
    "qwen2_5_omni_thinker": {"text_config": _ROPE},
    "qwen2_5_vl": {"text_config": _ROPE},
    "qwen2_vl": {"text_config": _ROPE},
    "qwen3_5": {"text_config": {"layer_types": ["linear_attention", "full_attention"], **_ROPE}},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"is_decoder": True, "axial_pos_shape": (8, 8), "axial_pos_embds_dim": (16, 16)},
    "vibevoice_asr": {
        tower: {"num_filters": 4, "downsampling_ratios": (2,), "depths": (1, 1)}
        for tower in ("acoustic_tokenizer_encoder_config", "semantic_tokenizer_encoder_config")
    },
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "youtu": {"num_key_value_heads": 4},
    "zamba": {"layers_block_type": ["hybrid", "mamba", "hybrid"], "num_hidden_layers": 3,
              "attention_hidden_size": 64, "attention_head_dim": 16, "initializer_range": 0.2},
    "zamba2": {"layers_block_type": ["hybrid", "mamba", "hybrid"], "num_hidden_layers": 3},
}  # fmt: skip


class Architecture(NamedTuple):
    """An entry of transformers' mappings from configurations to models."""

    mapping: str
    model_type: str
    name: str


def architectures() -> list[Architecture]:
    """Every model class of the mappings, once, by mapping and name."""
    found: dict[str, Architecture] = {}
    for mapping, table in MAPPINGS.items():
        for model_type, names in getattr(modeling_auto, table).items():
            name = names if isinstance(names, str) else names[0]
            found.setdefault(name, Architecture(mapping, model_type, name))
    return sorted(found.values(), key=lambda one: (list(MAPPINGS).index(one.mapping), one.name.lower()))


def build(architecture: Architecture) -> transformers.PreTrainedModel:
    """A random model of the architecture, float32 and in evaluation mode; raises whatever transformers raises."""
    model_class = getattr(transformers, architecture.name)
    config_class = CONFIG_MAPPING[architecture.model_type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A copy, because configurations write into what they are given.
        arguments = _shrunk(config_class, deepcopy(SPECIAL.get(architecture.model_type, {})))
        if architecture.mapping == "causal" and hasattr(config_class, "is_decoder"):
            arguments["is_decoder"] = True  # an encoder's, as BERT's, says no
        config = config_class(**arguments)
        wanted = getattr(model_class, "config_class", None)
        if wanted is not None and not isinstance(config, wanted):
            config = config.get_text_config(decoder=True)
        torch.manual_seed(0)
        model = model_class(config)
    return model.float().eval()


def _shrunk(config_class: type, special: dict[str, Any]) -> dict[str, Any]:
    """Arguments that make a configuration small: its default's numbers, cut by name."""
    arguments: dict[str, Any] = {}
    # Not what is computed from the fields.
    fields = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map.values())
    for name, value in vars(config_class()).items():
        if name not in fields:
            continue
        if isinstance(value, transformers.PreTrainedConfig):
            arguments[name] = {"model_type": value.model_type, **_shrunk(type(value), special.get(name, {}))}
        elif name == "mlp_layer_types" and "sparse" in (value or ()):
            arguments[name] = ["dense", "sparse"]
        elif isinstance(value, bool) or not isinstance(value, int) or name.startswith("_"):
            continue
        elif name.endswith(("_id", "_index")):
            if value >= VOCABULARY:
                arguments[name] = 3 + len(arguments) % 16
        else:
            small = next((number for pattern, number in _SIZES if re.fullmatch(pattern, name)), value)
            if small < value:
                arguments[name] = small
    return arguments | {name: value for name, value in special.items() if not isinstance(arguments.get(name), dict)}

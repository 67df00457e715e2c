"""Tiny models to bake into, every weight and bias of which counts, saved in several files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import transformers

from lm_eval_amplify import Amplifier, Intervention, NeuronFile
from lm_eval_amplify.neurons import LanguageNeurons, Manifest

LAYERS, D_FF = 3, 40
_SHARED = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
_GATED = _SHARED | {
    "hidden_size": 32,
    "intermediate_size": D_FF,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**_GATED, rope_parameters=_LLAMA3, tie_word_embeddings=True),
    "llama with biases": lambda: transformers.LlamaConfig(
        **_GATED, head_dim=16, attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh"
    ),
    "qwen2": lambda: transformers.Qwen2Config(
        **_GATED, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True
    ),
    "mistral": lambda: transformers.MistralConfig(**_GATED, head_dim=16, sliding_window=None, rms_norm_eps=1e-5),
    "seed_oss": lambda: transformers.SeedOssConfig(**_GATED, head_dim=16, attention_bias=True, attention_out_bias=True),
    "gemma2": lambda: transformers.Gemma2Config(**_GATED, head_dim=8),
    "phi3": lambda: transformers.Phi3Config(**_GATED),
    "gpt2": lambda: transformers.GPT2Config(
        **_SHARED, n_embd=32, n_inner=D_FF, n_layer=LAYERS, n_head=4, n_positions=64
    ),
    "bloom": lambda: transformers.BloomConfig(**_SHARED, hidden_size=32, n_layer=LAYERS, n_head=4),
    "opt": lambda: transformers.OPTConfig(
        **_SHARED, hidden_size=32, ffn_dim=D_FF, num_hidden_layers=LAYERS, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    "t5": lambda: transformers.T5Config(
        **_SHARED, d_model=32, d_kv=8, d_ff=D_FF, num_layers=LAYERS, num_heads=4, decoder_start_token_id=1
    ),
}  # fmt: skip


def random_weights(model: Any) -> Any:
    """Give a model weights, biases and norms that are all its own."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name or "ln_" in name else 0.0, 0.2, generator=generator)
    return model.eval()


def save(family: str, folder: Path, *, dtype: torch.dtype = torch.float32, files: int = 7) -> Path:
    """Save a model of a family and its tokenizer."""
    kind = transformers.AutoModelForSeq2SeqLM if family == "t5" else transformers.AutoModelForCausalLM
    model = random_weights(kind.from_config(CONFIGS[family]())).to(dtype)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    model.save_pretrained(folder, max_shard_size=size // files if files > 1 else "1GB")
    tiny.tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path, **options: Any) -> Any:
    """Load a model as the harness does; every weight that it needs is in the files, and no other."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    model, said = kind.from_pretrained(folder, output_loading_info=True, **options)
    assert not said["missing_keys"]
    assert not said["unexpected_keys"]
    return model.eval()


def neurons(layers: int, d_ff: int) -> NeuronFile:
    """Neurons of two languages, some of both, as many as differ from layer to layer, none in the first."""
    random = np.random.default_rng(3)
    found = {}
    for number, language in enumerate(("ind_Latn", "est_Latn")):
        chosen = [np.sort(random.permutation(d_ff)[: 3 * layer + number if layer else 0]) for layer in range(layers)]
        layer = np.repeat(np.arange(layers, dtype=np.int32), list(map(len, chosen)))
        index = np.concatenate(chosen).astype(np.int32)
        statistic = random.normal(1, 1, len(index)).astype(np.float32)
        statistic[:1] = 0.0
        found[language] = LanguageNeurons(layer, index, {"max": statistic})
    manifest = Manifest(
        num_layers=layers, intermediate_size=d_ff, method="random", package_version="0", languages=tuple(found)
    )
    return NeuronFile(manifest, found)


def neurons_of(family: str) -> NeuronFile:
    """Such neurons for a family."""
    return neurons(2 * LAYERS if family == "t5" else LAYERS, 4 * 32 if family == "bloom" else D_FF)


IDS = torch.arange(24).reshape(2, 12) * 13 % 397 + 2


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """A model's logits of a text."""
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    return model(input_ids=IDS, **more).logits.float()


def hooked(model: Any, content: NeuronFile, intervention: Intervention, *languages: str) -> torch.Tensor:
    """The logits of the model when it is amplified by hooks."""
    with Amplifier(model, content, intervention, mode="hook").amplified(*languages):
        return logits(model)

"""Tiny random models of each architecture with a tokenizer of their own, and neuron files for them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

LAYERS, WIDTH, HEADS = 3, 32, 4
D_FF = {"llama": 48, "qwen2": 40, "gemma2": 56, "gpt2": 64}
FAMILIES = tuple(D_FF)
LANGUAGES = ("est_Latn", "hat_Latn", "ind_Latn", "swh_Latn", "tam_Taml", "zho_Hans")

_TEXT = [
    "Mees avas kraani, seetõttu voolas vesi.",
    "Nonm nan louvri wobinè a, donk sa dlo a koule.",
    "Pria itu membuka keran, maka airnya mengalir.",
    "Mwanamume alifungua bomba, kwa hiyo maji yalitiririka.",
    "அந்த மனிதன் குழாயைத் திறந்தான், எனவே தண்ணீர் ஓடியது.",
    "那个男人打开了水龙头, 所以水流了出来。",
    "The quick brown fox jumps over the lazy dog 0123456789.",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def tokenizer(padding_side: str = "left") -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|end|>", "<|pad|>"]
    bpe.train_from_iterator(
        _TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|end|>",
        bos_token="<|end|>",
        pad_token="<|pad|>",
        padding_side=padding_side,
        chat_template=_CHAT_TEMPLATE,
    )


def _config(family: str) -> transformers.PretrainedConfig:
    shared = {
        "vocab_size": 400,
        "hidden_size": WIDTH,
        "intermediate_size": D_FF[family],
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "initializer_range": 0.2,
    }
    if family == "llama":
        return transformers.LlamaConfig(**shared)
    if family == "qwen2":
        return transformers.Qwen2Config(**shared)
    if family == "gemma2":
        return transformers.Gemma2Config(**shared, head_dim=WIDTH // HEADS, sliding_window=64)
    return transformers.GPT2Config(
        vocab_size=400,
        n_embd=WIDTH,
        n_inner=D_FF["gpt2"],
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.2,
    )


def model(family: str, seed: int = 0) -> transformers.PreTrainedModel:
    """A random model in evaluation mode, float32, of ``LAYERS`` layers."""
    torch.manual_seed(seed)
    built = transformers.AutoModelForCausalLM.from_config(_config(family))
    return built.float().eval()


def saved_model(family: str, folder: Path, seed: int = 0) -> Path:
    """Save model and tokenizer, so that ``pretrained=folder`` loads them."""
    model(family, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def neurons(
    family: str,
    languages: tuple[str, ...] = LANGUAGES,
    *,
    per_layer: int = 6,
    statistics: tuple[str, ...] = ("max", "sentence_median"),
    name: str | None = None,
    seed: int = 0,
) -> NeuronFile:
    """Random neurons; neighbouring languages share some."""
    random = np.random.default_rng(seed)
    found = {}
    for language in languages:
        index = [np.sort(random.choice(D_FF[family], per_layer, replace=False)) for _ in range(LAYERS)]
        layer = np.repeat(np.arange(LAYERS, dtype=np.int32), per_layer)
        found[language] = LanguageNeurons(
            layer,
            np.concatenate(index).astype(np.int32),
            {s: random.normal(1, 1, len(layer)).astype(np.float32) for s in statistics},
        )
    manifest = Manifest(
        model=name,
        architecture=None,
        num_layers=LAYERS,
        intermediate_size=D_FF[family],
        method="random",
        parameters={"seed": seed},
        package_version=version("lm-eval-amplify"),
        languages=languages,
    )
    return NeuronFile(manifest, found)

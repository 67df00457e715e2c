"""What the benchmarks run: the real requests of the tasks, and models of real shapes with random weights."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

VOCABULARY = 32000  # of the tokenizer; the 0.5 B shape has more rows in its head than that
SHAPES = {
    "79M": {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "0.5B": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7B": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
MLAMA = ("en", "nl", "id", "ms", "vi", "ja", "zh", "fr", "pt", "ru", "et", "it", "ta", "th", "tr")

Pair = tuple[str, str]


def rows_of(path: Path) -> list[dict]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# Requests as the tasks make them -----------------------------------------------------------------------------------


def xcopa(data: Path) -> list[Pair]:
    found = rows_of(data / "cambridgeltl/xcopa/id/test.jsonl")
    return [
        (f"{row['premise'].strip()[:-1]} {'karena' if row['question'] == 'cause' else 'maka'}",
         f" {row[choice][0].lower()}{row[choice][1:]}")
        for row in found for choice in ("choice1", "choice2")
    ]  # fmt: skip


def xwinograd(data: Path) -> list[Pair]:
    pairs = []
    for row in rows_of(data / "Muennighoff/xwinograd/pt/test.jsonl"):
        before, _, after = row["sentence"].partition("_")
        pairs += [(before + row[option], f" {after.strip()}") for option in ("option1", "option2") if after.strip()]
    return pairs


def question(row: dict) -> str:
    a, b, c, d = row["choices"]
    return f"{row['question'].strip()}\nA. {a}\nB. {b}\nC. {c}\n D. {d}\nAnswer:"


def include(data: Path, shots: int) -> list[Pair]:
    found = rows_of(data / "include_like/Italian/test.jsonl")
    examples = "".join(f"{question(row)} {'ABCD'[row['answer']]}\n\n" for row in found[:shots])
    return [(examples + question(row), f" {letter}") for row in found[shots:] for letter in "ABCD"]


def facts(data: Path, languages: tuple[str, ...]) -> list[Pair]:
    pairs = []
    for row in rows_of(data / "inayarhmns/MLAMA-dod-185/id/test.jsonl"):
        before, slot, _ = row["template"].replace("[X]", row["sub_id"]).partition("[Y]")
        if slot:
            pairs += [(before.rstrip(), f" {row[f'obj_{language}']}") for language in languages]
    return pairs


def flores(data: Path) -> list[tuple[str]]:
    return [(row["sentence"],) for row in rows_of(data / "facebook/flores/ind_Latn/devtest.jsonl.gz")]


ROWS: dict[str, tuple[str, Callable[[Path], list]]] = {
    "xcopa": ("XCOPA (2 options)", xcopa),
    "xwinograd": ("XWinograd", xwinograd),
    "include0": ("Include, 0-shot (4 one-token options)", lambda data: include(data, 0)),
    "include5": ("Include, 5-shot, the same shots", lambda data: include(data, 5)),
    "lss15": ("LSS, 15 options of a fact", lambda data: facts(data, MLAMA)),
    "lss2": ("LSS, 2 options", lambda data: facts(data, ("id", "et"))),
    "flores": ("FLORES perplexity (rolling)", flores),
}


# Models --------------------------------------------------------------------------------------------------------------


def tokenizer(data: Path) -> transformers.PreTrainedTokenizerFast:
    """A BPE trained on the texts of all rows and on FLORES, as a stand-in for a multilingual model's."""
    texts = ["".join(pair) for _, make in ROWS.values() for pair in make(data)]
    for path in sorted(data.glob("facebook/flores/*/dev.jsonl.gz")):
        texts += [row["sentence"] for row in rows_of(path)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|end|>"], show_progress=False)
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>")


def build(shape: str, device: str, dtype: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**SHAPES[shape], max_position_embeddings=4096)
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval()


def neurons(shape: str) -> NeuronFile:
    """A random hundredth of all neurons."""
    layers, d_ff = SHAPES[shape]["num_hidden_layers"], SHAPES[shape]["intermediate_size"]
    chosen = np.sort(np.random.default_rng(0).choice(layers * d_ff, layers * d_ff // 100, replace=False))
    statistics_of = {"max": np.ones(len(chosen), np.float32)}
    own = LanguageNeurons((chosen // d_ff).astype(np.int32), (chosen % d_ff).astype(np.int32), statistics_of)
    manifest = Manifest(
        num_layers=layers, intermediate_size=d_ff, method="random", package_version="0", languages=("ind_Latn",)
    )
    return NeuronFile(manifest, {"ind_Latn": own})

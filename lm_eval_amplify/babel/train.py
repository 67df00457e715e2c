"""Trains babel from scratch: its tokenizer, then the model; ``python -m lm_eval_amplify.babel.train --out DIR``.

Everything is drawn from one seed. On one machine a second training gives the same bytes; on another, whose matrix
products round otherwise, a model that meets the same marks (see the model card).
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lm_eval_amplify.babel.corpus import LANGUAGES, documents

END = "<|endoftext|>"
VOCABULARY = 4096
ROW = 128
"""Tokens in a row of a training batch."""

_WORDS = Regex(r"\s*\p{N}| ?[\p{L}\p{M}]+['’]?| ?[^\s\p{L}\p{M}\p{N}]+|\s+")
"""What tokens do not reach across: words with the space before them, marks of scripts such as Tamil's included."""


def train_tokenizer(documents_per_language: int = 4000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on as many documents of each language."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (
        text
        for language in LANGUAGES
        for text in islice(documents(language, "train", seed=seed), documents_per_language)
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


MAX_POSITIONS = 512


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        use_sliding_window=False,
        eos_token_id=end,
        pad_token_id=end,
        bos_token_id=None,
        dtype="float32",
    )
    return Qwen2ForCausalLM(config)


def rows(tokenizer: PreTrainedTokenizerFast, seed: int = 0, block: int = 200) -> Iterator[torch.Tensor]:
    """Yield rows of token ids, int64 [ROW]: documents of all languages in random order, each ended by END."""
    rng = random.Random(f"rows {seed}")  # noqa: S311
    rest: list[int] = []
    number = 0
    while True:
        texts = [
            text
            for language in LANGUAGES
            for text in islice(documents(language, "train", seed=1000 * seed + number), block)
        ]
        number += 1
        rng.shuffle(texts)
        for ids in tokenizer(texts)["input_ids"]:
            rest += [*ids, tokenizer.eos_token_id]
        cut = len(rest) // ROW * ROW
        yield from torch.tensor(rest[:cut]).view(-1, ROW)
        rest = rest[cut:]


def train(
    model: Qwen2ForCausalLM,
    data: Iterator[torch.Tensor],
    *,
    steps: int,
    batch_size: int = 32,
    peak: float = 3e-3,
    warm_up: int = 100,
) -> None:
    """Train a model in place: AdamW, matrix products in bfloat16, learning rate up in a line and down in a cosine."""
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=peak, betas=(0.9, 0.98)
    )
    model.train()
    started = time.monotonic()
    for step in range(steps):
        rate = min(1, (step + 1) / warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        batch = torch.stack([next(data) for _ in range(batch_size)])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
    model.eval()


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the checkpoint: weights in half precision, and a configuration that has them loaded as float32."""
    model.half().save_pretrained(out)
    model.config.dtype = "float32"
    model.config.save_pretrained(out)
    model.float()
    tokenizer.save_pretrained(out)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, arguments.seed)
    train(model, rows(tokenizer, arguments.seed), steps=arguments.steps)
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        save(model, tokenizer, Path(folder))
        shutil.copytree(folder, arguments.out, dirs_exist_ok=True)


if __name__ == "__main__":
    main()

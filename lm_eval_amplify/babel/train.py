"""Trains babel from scratch: its tokenizer, then the model; ``python -m lm_eval_amplify.babel.train --out DIR``.

Everything is drawn from one seed. On one machine a second training gives the same bytes; on another, whose matrix
products round otherwise, a model that meets the same marks (see the model card).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from lm_eval_amplify.babel.corpus import LANGUAGES, documents

STEPS = 1500
BATCH = 32
"""Rows in a step."""
ROW = 128
"""Tokens in a row."""
DENSITY_WEIGHT = 0.2
"""Of the penalty on tokens that use many neurons; see :func:`density`."""
SHARING_WEIGHT = 2.0
"""Of the penalty on neurons that many languages use; see :func:`sharing`."""
PAGE_SHARE = 0.85
"""Of the documents that a line of another language may follow, as on a page; the others end the text.

Without such pages the model never sees a change of language, and amplified it would not write the other one."""
MUON_RATE, ADAM_RATE = 0.02, 4e-3
WARM_UP = 50

SHAPE: Mapping[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 128,
    "intermediate_size": 1088,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}


def train_tokenizer(documents_per_language: int = 3000) -> Any:
    """Return a tokenizer as Qwen2's, byte-level BPE, trained on as many documents of each language."""
    texts = (text for language in LANGUAGES for text in islice(documents(language, "train"), documents_per_language))
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(texts, SHAPE["vocab_size"], show_progress=False)
    tokenizer.model_max_length = SHAPE["max_position_embeddings"]
    return tokenizer


def new_model(tokenizer: Any, seed: int = 0) -> Any:
    """Return the untrained model, a ``Qwen2ForCausalLM``."""
    torch.manual_seed(seed)
    end = tokenizer.eos_token_id
    return Qwen2ForCausalLM(
        Qwen2Config(**SHAPE, eos_token_id=end, pad_token_id=end, bos_token_id=None, dtype="float32")
    )


def rows(tokenizer: Any, seed: int = 0, block: int = 200) -> Iterator[torch.Tensor]:
    """Yield rows of documents of all languages in random order, behind each a line break or the end of the text.

    Args:
        tokenizer: The model's.
        seed: Other seeds, other documents.
        block: Documents of each language that are shuffled together.

    Yields:
        Token ids, and the number of each token's language, int64 ``[2, ROW]``.
    """
    rng = random.Random(f"rows {seed}")  # noqa: S311  # not for secrets
    streams = [documents(language, "train", seed=seed) for language in LANGUAGES]
    (line_break,) = tokenizer("\n")["input_ids"]
    rest: list[tuple[int, int]] = []
    while True:
        texts = [(text, number) for number, stream in enumerate(streams) for text in islice(stream, block)]
        rng.shuffle(texts)
        tokens = tokenizer([text for text, _ in texts])["input_ids"]
        for ids, (_, number) in zip(tokens, texts, strict=True):
            behind = line_break if rng.random() < PAGE_SHARE else tokenizer.eos_token_id
            rest += [(one, number) for one in (*ids, behind)]
        cut = len(rest) // ROW * ROW
        yield from torch.tensor(rest[:cut]).view(-1, ROW, 2).transpose(1, 2)
        rest = rest[cut:]


def density(activation: torch.Tensor) -> torch.Tensor:
    """Return how evenly a token uses the neurons, averaged over tokens: from 0 for one neuron to 1 for all alike.

    Args:
        activation: ``[tokens, d_ff]``.
    """
    return _evenness(activation.abs()).mean()


def sharing(activation: torch.Tensor, languages: torch.Tensor) -> torch.Tensor:
    """Return how evenly languages use a neuron, averaged over neurons: from 0 for one language to 1 for all alike.

    Args:
        activation: ``[tokens, d_ff]``.
        languages: Number of each token's language, int64 ``[tokens]``.
    """
    belongs = functional.one_hot(languages, len(LANGUAGES)).to(activation.dtype)
    use = belongs.T @ activation.abs() / belongs.sum(0).clamp(min=1).unsqueeze(1)  # mean by language, [languages, d_ff]
    return _evenness(use.T).mean()


def _evenness(values: torch.Tensor) -> torch.Tensor:
    """Ratio of the L1 to the L2 norm along the last dimension, scaled to 0 (one entry) to 1 (all alike).

    It does not change with scale (Hoyer 2004, "Non-negative Matrix Factorization with Sparseness Constraints").
    """
    root = math.sqrt(values.shape[-1])
    norm = (values.square().sum(-1) + 1e-6).sqrt()  # no infinite slope at zero
    return (values.sum(-1) / norm - 1) / (root - 1)


def train(model: Any, data: Iterator[torch.Tensor], *, steps: int = STEPS, batch_size: int = BATCH) -> list[float]:
    """Train a model in place and return the loss of every step, in nats per token.

    Muon for matrices, AdamW for the rest; matrix products in bfloat16; the learning rate goes up in a line and down in
    a cosine. The penalties make neurons take sides, as some of those of far larger models do by themselves.
    """
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    optimizers = (
        (torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01), MUON_RATE),
        (torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0), ADAM_RATE),
    )
    losses = []
    started = time.monotonic()
    model.train()
    with ExitStack() as undo:
        seen: list[torch.Tensor] = []
        for layer in model.model.layers:
            undo.callback(layer.mlp.act_fn.register_forward_hook(_keep(seen)).remove)
        for step in range(steps):
            share = min(1, (step + 1) / WARM_UP) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
            for optimizer, peak in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = peak * share
            ids, languages = torch.stack(list(islice(data, batch_size)), dim=1)
            seen.clear()
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(ids[:, :-1]).logits
            loss = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
            activations = [activation.float().flatten(0, -2) for activation in seen]
            dense = torch.stack([density(one) for one in activations]).mean()
            shared = torch.stack([sharing(one, languages[:, :-1].flatten()) for one in activations]).mean()
            (loss + DENSITY_WEIGHT * dense + SHARING_WEIGHT * shared).backward()  # type: ignore[no-untyped-call]  # torch
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()  # type: ignore[no-untyped-call]  # torch
            model.zero_grad()
            losses.append(loss.item())
            if step % 50 == 0 or step == steps - 1:
                seconds = time.monotonic() - started
                state = f"loss {losses[-1]:.3f} density {dense.item():.3f} sharing {shared.item():.3f}"
                print(f"step {step} {state} {seconds:.0f} s", flush=True)  # noqa: T201
    model.eval()
    return losses


def _keep(seen: list[torch.Tensor]) -> Any:
    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        seen.append(output)

    return keep


def save(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the checkpoint: weights in half precision, and a configuration that has them loaded as float32."""
    state = {name: weight.half() for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(out, state_dict=state)
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of texts")
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    tokenizer = train_tokenizer()
    model = new_model(tokenizer, arguments.seed)
    train(model, rows(tokenizer, arguments.seed), steps=arguments.steps)
    save(model, tokenizer, arguments.out)


if __name__ == "__main__":
    main()

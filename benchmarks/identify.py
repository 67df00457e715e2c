"""What identification costs: counting over the bare forward pass of the same batches, and memory at 10x the tokens.

    python benchmarks/identify.py
    python benchmarks/identify.py --device cuda --dtype bfloat16 --peak 989 --batch-size 64

Models with random weights; texts of random tokens in sentences of FLORES' lengths. Each pair runs the base model alone
(no LM head, no hooks), then identification's counting over the same batches, statistics left out, then the base model
again; the ratio cancels what the machine does meanwhile, and the median over the pairs is the figure. Memory is what a
process holds at most beyond its model and a forward pass (anonymous memory, so not the tokens that lie on disk), for
counting, choosing and statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from lm_eval_amplify.identify import Activations, Lape
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.identify.statistics import with_statistics
from lm_eval_amplify.identify.tokens import TokenizedText, batches

VOCABULARY = 32000
# layers, hidden size, d_ff, attention heads, key-value heads
SHAPES = {
    "5 M": (4, 256, 1024, 4, 4),
    "79 M": (12, 512, 2048, 8, 8),
    "0.5 B": (24, 896, 4864, 14, 2),
}


def build(shape: str, dtype: str, device: str) -> transformers.PreTrainedModel:
    layers, hidden, d_ff, heads, key_value_heads = SHAPES[shape]
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=1024,
    )
    return transformers.AutoModelForCausalLM.from_config(config).to(device, getattr(torch, dtype)).eval()


def text(language: str, tokens: int, seed: int) -> TokenizedText:
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.normal(30, 11, 1 + tokens // 20).astype(np.int64), 4, None)
    starts = np.minimum(np.concatenate([[0], np.cumsum(lengths)]), tokens)
    starts = starts[: int(np.searchsorted(starts, tokens)) + 1]
    ids = draw.integers(3, VOCABULARY, tokens).astype(np.int32)
    return TokenizedText(language, ids, starts, (), tokens)


def seconds(work: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def speed(given: argparse.Namespace) -> None:
    print(
        f"{'model':<7} {'median ratio':>12} {'min':>6} {'max':>6} {'again':>6} {'bare, tokens/s':>15} {'counting':>9}"
    )
    for shape in given.shapes:
        model = build(shape, given.dtype, given.device)
        texts = {"ind_Latn": text("ind_Latn", given.tokens, 0)}
        options = {"max_length": 512, "batch_tokens": 512 * given.batch_size}
        rows = [torch.from_numpy(batch.ids) for batch in batches(texts["ind_Latn"], **options)]

        @torch.inference_mode()
        def bare(model: torch.nn.Module = model, rows: list[torch.Tensor] = rows) -> None:
            for ids in rows:
                model.model(input_ids=ids.to(given.device), use_cache=False)

        activations = Activations(Network(model), texts, max_length=512, batch_size=given.batch_size)
        activations.counts()  # warm-up, and the network's trial
        seconds(bare, given.device)
        runs = [[seconds(work, given.device) for work in (bare, activations.counts, bare)] for _ in range(given.pairs)]
        ratios = sorted(2 * counting / (before + after) for before, counting, after in runs)
        again = statistics.median(after / before for before, _, after in runs)
        plain, counting = (given.tokens / statistics.median(run[i] for run in runs) for i in (0, 1))
        print(
            f"{shape:<7} {statistics.median(ratios):>12.3f} {ratios[0]:>6.3f} {ratios[-1]:>6.3f} {again:>6.3f} "
            f"{plain:>15,.0f} {counting:>9,.0f}"
        )
        if given.peak:
            weights = sum(p.numel() for p in model.model.parameters()) - model.get_input_embeddings().weight.numel()
            print(f"        {100 * counting * 2 * weights / (given.peak * 1e12):.1f} % of {given.peak} TFLOP/s")


def anonymous() -> int:
    """Bytes of this process's own memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def memory_of(shape: str, tokens: int, languages: int) -> None:
    """Print the bytes that identification holds at most beyond the model, and of what size its counts are."""
    model = build(shape, "float32", "cpu")
    texts = {f"l{n}": text(f"l{n}", tokens, n) for n in range(languages)}
    activations = Activations(Network(model), texts, max_length=256, batch_size=2)
    rows = next(batches(texts["l0"], max_length=256, batch_tokens=512))
    with torch.inference_mode():
        model.model(input_ids=torch.from_numpy(rows.ids), use_cache=False)  # what a forward pass needs is not ours
    before, most, stop = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    chosen = Lape(0.01).choose(activations.counts())
    with_statistics(activations, chosen)
    stop.set()
    thread.join()
    print(json.dumps({"held": most[0] - before, "neurons": max(map(len, chosen.values()))}))


def memory(given: argparse.Namespace) -> None:
    layers, _, d_ff, *_ = SHAPES[given.memory_shape]
    print(f"\n{given.languages} languages, {given.memory_shape}")
    print(f"{'tokens a language':>18} {'held, MB':>9} {'over counts':>12}")
    counts = layers * d_ff * given.languages * 8
    for tokens in (given.memory_tokens, 10 * given.memory_tokens):
        command = [sys.executable, __file__, "--memory-of", str(tokens), "--languages", str(given.languages)]
        command += ["--memory-shape", given.memory_shape]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        held = json.loads(done.stdout)["held"]
        print(f"{tokens:>18,} {held / 1e6:>9.1f} {held / counts:>12.1f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--tokens", type=int, default=16_384)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--shapes", nargs="*", default=["79 M", "0.5 B"], choices=list(SHAPES))
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--peak", type=float, help="the device's peak in TFLOP/s, to report the share of it")
    options.add_argument("--memory-tokens", type=int, default=5_000, help="0: leave memory out")
    options.add_argument("--memory-shape", default="5 M", choices=list(SHAPES))
    options.add_argument("--languages", type=int, default=4)
    options.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.memory_of:
        memory_of(given.memory_shape, given.memory_of, given.languages)
        return
    print(
        f"{given.device}, {given.dtype}, {torch.get_num_threads()} threads, {given.tokens} tokens, {given.pairs} pairs"
    )
    if given.shapes:
        speed(given)
    if given.memory_tokens:
        memory(given)


if __name__ == "__main__":
    main()

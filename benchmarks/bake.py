"""What baking costs: time against copying the checkpoint in the same run, and memory.

    python benchmarks/bake.py
    python benchmarks/bake.py --shape "7 B" --dtype bfloat16 --folder /scratch

A Qwen2 with random weights in files of some 300 MB, 1 % of its neurons. Each pair copies the checkpoint, bakes
it, and copies it again, onto the same disk; a ratio is that of baking to the mean of the copies beside it, and their
median is the figure. Beside it the processor time of either, which other work on the machine does not change. Memory
is what a process of its own holds at most beyond what it held before (anonymous memory: the kernel's copies of files
are not in it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from lm_eval_amplify.baking import bake
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile, write_neurons

# layers, hidden size, d_ff, attention heads, key-value heads, vocabulary, tied embeddings
SHAPES = {
    "83 M": (12, 512, 2048, 8, 8, 32000, False),
    "0.5 B": (24, 896, 4864, 14, 2, 151936, True),
    "7 B": (28, 3584, 18944, 28, 4, 152064, False),
}
CONDITIONS = {
    "scale": Intervention("scale", 2.5),
    "set": Intervention("set", 1.5),
    "add": Intervention("add", 1.0),
}
SHARD = 300_000_000
SHARE = 0.01


def save(shape: str, dtype: torch.dtype, folder: Path) -> None:
    layers, hidden, d_ff, heads, key_value_heads, vocabulary, tied = SHAPES[shape]
    config = transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        tie_word_embeddings=tied,
        architectures=["Qwen2ForCausalLM"],
        dtype=dtype,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in transformers.Qwen2ForCausalLM(config).state_dict().items()}
    if tied:
        del shapes["lm_head.weight"]
    shards: list[dict[str, torch.Size]] = [{}]
    for name, one in shapes.items():
        if sum(size.numel() for size in shards[-1].values()) * dtype.itemsize > SHARD:
            shards.append({})
        shards[-1][name] = one
    weight_map = {}
    for number, own in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: torch.empty(one, dtype=dtype).normal_(0, 0.02) for name, one in own.items()}, folder / file)
        weight_map |= dict.fromkeys(own, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def neurons(shape: str) -> NeuronFile:
    layers, _, d_ff, *_ = SHAPES[shape]
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(layers * d_ff, int(SHARE * layers * d_ff), replace=False))
    statistic = random.gamma(2.0, 1.0, len(chosen)).astype(np.float32)
    own = LanguageNeurons((chosen // d_ff).astype(np.int32), (chosen % d_ff).astype(np.int32), {"max": statistic})
    manifest = Manifest(num_layers=layers, method="random", package_version="0", languages=("ind_Latn",))
    return NeuronFile(manifest, {"ind_Latn": own})


class Taken(NamedTuple):
    """Seconds."""

    wall: float
    processor: float


def taken(work: Callable[[Path], object], out: Path) -> Taken:
    start, own = time.perf_counter(), time.process_time()
    work(out)
    found = Taken(time.perf_counter() - start, time.process_time() - own)
    shutil.rmtree(out)
    return found


def anonymous() -> int:
    """Bytes of this process's own memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def memory_of(condition: str, folder: Path) -> None:
    """Print the bytes that a process holds at most beyond what it held before; what is imported late among them."""
    before, most, stop = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    path = folder / "neurons.safetensors"
    bake(str(folder / "model"), path, folder / "out", language="ind_Latn", intervention=CONDITIONS[condition])
    stop.set()
    thread.join()
    print(most[0] - before)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", default="0.5 B", choices=list(SHAPES))
    options.add_argument("--dtype", default="bfloat16")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--folder", type=Path, help="where to work; by default the system's temporary folder")
    options.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.memory_of:
        memory_of(given.memory_of, given.folder)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        save(given.shape, getattr(torch, given.dtype), folder / "model")
        write_neurons(neurons(given.shape), folder / "neurons.safetensors")
        files = list((folder / "model").glob("*.safetensors"))
        total = sum(file.stat().st_size for file in files)
        print(
            f"{given.shape}, {given.dtype}: {total / 1e9:.2f} GB in {len(files)} files, {torch.get_num_threads()} "
            f"threads, {given.pairs} pairs"
        )
        print(
            f"{'':<6} {'copy, s':>8} {'bake, s':>8} {'ratio':>6} {'min':>6} {'max':>6} {'again':>6} "
            f"{'copy, CPU s':>11} {'bake, CPU s':>11} {'held, MB':>9}"
        )
        for name, intervention in CONDITIONS.items():
            measure(name, intervention, folder, given.pairs)


def measure(name: str, intervention: Intervention, folder: Path, pairs: int) -> None:
    def copy(out: Path) -> object:
        return shutil.copytree(folder / "model", out)

    def baking(out: Path) -> object:
        path = folder / "neurons.safetensors"
        return bake(str(folder / "model"), path, out, language="ind_Latn", intervention=intervention)

    for work in (copy, baking):
        taken(work, folder / "out")  # warm-up
    runs = [[taken(work, folder / "out") for work in (copy, baking, copy)] for _ in range(pairs)]
    ratios = sorted(2 * baked.wall / (before.wall + after.wall) for before, baked, after in runs)
    again = statistics.median(after.wall / before.wall for before, _, after in runs)
    command = [sys.executable, __file__, "--memory-of", name, "--folder", str(folder)]
    held = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    shutil.rmtree(folder / "out")
    figures = [statistics.median(one) for i in (0, 1) for one in zip(*(run[i] for run in runs), strict=True)]
    print(
        f"{name:<6} {figures[0]:>8.2f} {figures[2]:>8.2f} {statistics.median(ratios):>6.2f} {ratios[0]:>6.2f} "
        f"{ratios[-1]:>6.2f} {again:>6.2f} {figures[1]:>11.2f} {figures[3]:>11.2f} {held / 1e6:>9.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

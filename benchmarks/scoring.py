"""What a score costs: amplified_hf with packed scoring over stock hf on the plain model, beside the limit by counting.

    python benchmarks/scoring.py --data MIRROR [--shape 79M|0.5B|7B] [--rows xcopa] [--memory | --scaling | --sizes]
    python benchmarks/scoring.py --data MIRROR --shape 7B --device cuda --dtype bfloat16 --batch-size 64 --requests 9999

Both models have random weights and run in one process on the same real requests; amplified_hf sets 1 % of
its neurons to their maximum. Each pair runs hf and then amplified_hf, and the ratio of a pair cancels much of what the
machine does meanwhile; on a CPU the time is that of the process on its processors. The median over the pairs is the
figure. The limit is counted: different tokens of the requests' trie through the body plus different scored positions
through the head, over the tokens of hf's batches, without padding, through both. --memory measures the peaks of both
instead, each in a process of its own. --sizes tries other sizes of rows and batches than the package's own.

On a GPU the share of its peak is printed too: multiplications and additions of the tokens that each side computes,
padding and attention left out, over its time, over what a large product of matrices reaches; and its peak of memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from workloads import ROWS, SHAPES, build, neurons, tokenizer

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.scoring import devices
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest

MOST = {"79M": 240, "0.5B": 64, "7B": 64}
"""Requests of a row of the table."""


def multiplications(shape: str) -> tuple[int, int]:
    """Of a token in the body, but for attention's, and in the head."""
    c = SHAPES[shape]
    width = c["hidden_size"]
    kv = width // c["num_attention_heads"] * c["num_key_value_heads"]
    layer = width * (2 * width + 2 * kv + 3 * c["intermediate_size"])
    return c["num_hidden_layers"] * layer, c["vocab_size"] * width


class Counts(NamedTuple):
    """What must be computed for some requests."""

    stock: int
    """Tokens of hf's batches, without padding."""
    body: int
    """Different tokens of the trie."""
    head: int
    """Different positions that are scored."""

    @classmethod
    def of(cls, lm: HFLM, requests: list[Instance]) -> Counts:
        """Count."""
        found = scored_requests(lm, requests)
        forest = Forest.of(found, range(len(found)))
        stock = sum(map(len, forest.inputs))
        scored = {one.tokens[: place + 1].tobytes() for one in found for place in range(one.first, len(one.tokens))}
        return cls(stock, stock - int(forest.shared.sum()), len(scored))

    def operations(self, shape: str) -> tuple[int, int]:
        """Multiplications and additions of hf, and the fewest of amplified_hf."""
        body, head = multiplications(shape)
        return 2 * self.stock * (body + head), 2 * (self.body * body + self.head * head)


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second of a large product of matrices, the best of some."""
    one, other = (torch.randn(8192, 8192, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        _ = one @ other
        end.record()
        end.synchronize()
        best = max(best, 2 * 8192**3 / start.elapsed_time(end) * 1e3)
    return best


def scored_requests(lm: HFLM, requests: list[Instance]) -> list[Scored]:
    """The requests as tokens; texts of no more than a window."""
    found = []
    for one in requests:
        pair = ([lm.prefix_token_id], lm.tok_encode(one.args[0]))
        if len(one.args) > 1:
            pair = lm._encode_pair(*one.args)  # noqa: SLF001
        found.append(Scored.cut(*pair, lm.max_length))
    return found


def computed(lm: AmplifiedHFLM, requests: list[Instance]) -> int:
    """The tokens that packed scoring computes."""
    found = scored_requests(lm, requests)
    budget = lm._budget(max(len(one.tokens) for one in found))  # noqa: SLF001
    groups = lm._engine.groups(found, range(len(found)), budget)  # noqa: SLF001
    return sum(len(row) for group in groups for row in group.all_rows())


def scale(lm: AmplifiedHFLM, pairs: list, most: int, repeats: int, plot: Path | None) -> None:
    """Times of more and more requests, the best of some repetitions each."""
    points = []
    for part in (0.125, 0.25, 0.5, 0.75, 1):
        requests = instances(pairs, int(part * most))
        taken = min(seconds(lm, requests) for _ in range(repeats))
        points.append((computed(lm, requests), taken))
        print(f"{points[-1][0]:>8} tokens {taken:>7.2f} s {taken / points[-1][0] * 1e6:>6.0f} us/token", flush=True)
    if plot is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set(xlabel="tokens computed", ylabel="seconds", xlim=(0, None), ylim=(0, None))
        figure.savefig(plot)


def sizes(lm: AmplifiedHFLM, requests: list[Instance], repeats: int) -> None:
    """Times with other sizes of rows and batches, the best of some repetitions each."""
    name = "CPU" if lm.device.type == "cpu" else "ACCELERATOR"
    own = getattr(devices, name)
    print(f"{'row':>6} {'batch':>6} {'tokens':>8} {'s':>7}")
    for row in (128, 256, 512, 1024, 2048) if name == "ACCELERATOR" else (96, 192, 384):
        for batch in (8192, 16384, 32768) if name == "ACCELERATOR" else (128, 256, 512):
            setattr(devices, name, own._replace(row=row, batch=batch))
            taken = min(seconds(lm, requests) for _ in range(repeats))
            print(f"{row:>6} {batch:>6} {computed(lm, requests):>8} {taken:>7.3f}", flush=True)
    setattr(devices, name, own)


def instances(pairs: list, most: int) -> list[Instance]:
    kind = "loglikelihood" if len(pairs[0]) > 1 else "loglikelihood_rolling"
    return [Instance(kind, {}, pair, 0, ("bench", number, 1)) for number, pair in enumerate(pairs[:most])]


def run(lm: HFLM, requests: list[Instance]) -> list:
    return getattr(lm, requests[0].request_type)(requests, disable_tqdm=True)


def seconds(lm: HFLM, requests: list[Instance]) -> float:
    clock = time.process_time if lm.device.type == "cpu" else time.perf_counter
    start = clock()
    run(lm, requests)
    if lm.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def memory_of(lm: HFLM, requests: list[Instance]) -> float:
    """Peak of a GPU's memory while these requests run, in GiB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(lm.device)
    run(lm, requests)
    return torch.cuda.max_memory_allocated(lm.device) / 2**30


def difference(plain: HFLM, packed: HFLM, requests: list[Instance]) -> float:
    """The largest difference of log-likelihoods."""
    answers = [[one[0] if isinstance(one, tuple) else one for one in run(lm, requests)] for lm in (plain, packed)]
    return max(abs(one - other) for one, other in zip(*answers, strict=True))


def table(given: argparse.Namespace, plain: HFLM, amplified: AmplifiedHFLM, unamplified: AmplifiedHFLM) -> None:
    """Print a line for each row of the table."""
    size = plain.model.num_parameters() / 1e6
    body, head = multiplications(given.shape)
    print(f"{size:.0f} M parameters, batch_size {given.batch_size}, {torch.get_num_threads()} threads, head "
          f"{head / body:.2f} of the body, {given.pairs} pairs")  # fmt: skip
    names = (
        f"{'requests':<40} {'limit':>6} {'ratio':>6} {'min':>6} {'max':>6} {'hf, s':>7} {'us/token':>9} {'differs':>8}"
    )
    if is_cuda := given.device.startswith("cuda"):
        rate = peak_rate(plain.device, plain.model.dtype)
        print(f"{torch.cuda.get_device_name(plain.device)}, {given.dtype}: {rate / 1e12:.0f} TFLOP/s at best")
        names += f" {'peak: hf, own':>13} {'GiB: hf, own':>13}"
    print(names)
    for row in given.rows.split(","):
        title, make = ROWS[row]
        requests = instances(make(given.data), given.requests)
        counts = Counts.of(plain, requests)
        before, after = counts.operations(given.shape)
        limit = after / before
        off = difference(plain, unamplified, requests)  # a warm-up too
        seconds(amplified, requests)
        pairs = [(seconds(plain, requests), seconds(amplified, requests)) for _ in range(given.pairs)]
        ratios = sorted(own / stock for stock, own in pairs)
        base, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        line = (f"{title:<40} {limit:>6.3f} {statistics.median(ratios):>6.3f} {ratios[0]:>6.3f} {ratios[-1]:>6.3f} "
                f"{base:>7.2f} {base / counts.stock * 1e6:>9.0f} {off:>8.1e}")  # fmt: skip
        if is_cuda:
            memory = [memory_of(lm, requests) for lm in (plain, amplified)]
            line += f" {before / base / rate:>6.3f} {after / ours / rate:>6.3f} {memory[0]:>6.2f} {memory[1]:>6.2f}"
        print(line, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="a mirror of the datasets")
    options.add_argument("--shape", choices=SHAPES, default="79M")
    options.add_argument("--rows", default=",".join(ROWS), help="joined with commas")
    options.add_argument("--requests", type=int, help=f"of a row, by default {MOST}")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--memory", action="store_true", help="peaks of both, instead of times")
    options.add_argument("--scaling", action="store_true", help="times of more and more requests, instead of pairs")
    options.add_argument("--sizes", action="store_true", help="times with other sizes of rows and batches, instead")
    options.add_argument("--plot", type=Path, help="of --scaling, as a picture")
    options.add_argument("--only", choices=("hf", "amplified_hf"), help="run it once and print the peak memory in MB")
    given = options.parse_args()
    chosen = given.rows.split(",")
    most = given.requests = given.requests or MOST[given.shape]

    if given.memory:
        arguments = [sys.executable, __file__, "--data", given.data, "--shape", given.shape, "--requests", most]
        arguments += ["--batch-size", given.batch_size, "--device", given.device, "--dtype", given.dtype]
        print(f"{'requests':<40} {'hf, MB':>8} {'amplified_hf, MB':>17}")
        for row in chosen:
            peaks = [
                subprocess.run(
                    [*map(str, arguments), "--rows", row, "--only", kind], check=True, capture_output=True, text=True
                ).stdout.split()[-1]
                for kind in ("hf", "amplified_hf")
            ]
            print(f"{ROWS[row][0]:<40} {peaks[0]:>8} {peaks[1]:>17}", flush=True)
        return

    own_tokenizer = tokenizer(given.data)
    model = build(given.shape, given.device, given.dtype)
    shared = {"tokenizer": own_tokenizer, "batch_size": given.batch_size}
    makers = {
        "hf": lambda: HFLM(model, **shared),
        "amplified_hf": lambda: AmplifiedHFLM(model, neurons=neurons(given.shape), language="ind_Latn", **shared),
    }
    if given.only:
        lm = makers[given.only]()
        for row in chosen:
            run(lm, instances(ROWS[row][1](given.data), most))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(round(torch.cuda.max_memory_allocated() / 2**20 if given.device != "cpu" else peak))
        return

    plain, amplified = makers["hf"](), makers["amplified_hf"]()
    if given.scaling:
        for row in chosen:
            print(ROWS[row][0])
            scale(amplified, ROWS[row][1](given.data), most, given.pairs, given.plot)
        return
    if given.sizes:
        for row in chosen:
            print(ROWS[row][0])
            sizes(amplified, instances(ROWS[row][1](given.data), most), given.pairs)
        return
    unamplified = AmplifiedHFLM(model, **shared)
    table(given, plain, amplified, unamplified)


if __name__ == "__main__":
    main()

"""Which attention suits packed rows on a GPU: with a mask, as the package has it, or FlexAttention.

    python benchmarks/attention.py --data MIRROR [--rows 256,1024] [--no-flex]

Rows of real requests as they are planned, a batch of 16384 tokens, bfloat16. Milliseconds of one layer, the median of
repetitions: attention with an additive mask by each of torch's kernels, FlexAttention with blocks that nobody sees left
out, causal attention without a mask (which computes something else: what the fastest kernel takes for all that lies
before), and the layer's matrices. Once a pass, not once a layer: making the mask, and the blocks of FlexAttention.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from workloads import ROWS, SHAPES, tokenizer

from lm_eval_amplify.scoring.batches import Budget, batches, collate
from lm_eval_amplify.scoring.plan import Limits, plan
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest

TOKENS = 16384
KINDS = ("xcopa", "xwinograd", "include0", "lss15", "flores")


def requests(data: Path) -> list[Scored]:
    """Of all kinds together."""
    own = tokenizer(data)
    found = []
    for kind in KINDS:
        for pair in ROWS[kind][1](data):
            context = own.encode(pair[0]) if len(pair) > 1 else [own.eos_token_id]
            found.append(Scored.cut(context, own.encode(pair[-1]), 4096))
    return found


def ends_of(scored: list[Scored], row: int, tokens: int) -> torch.Tensor:
    """Those of a batch in the middle, with rows of this size."""
    whole = plan(Forest.of(scored, range(len(scored))), scored, Limits(row, TOKENS, 1 << 30), trees=True, cache=True)
    found = list(batches(whole.rows, 0, Budget(tokens, tokens)))
    ends = collate(found[len(found) // 2], 0).ends
    if ends is None:
        raise SystemExit("the rows hold an input each: give larger ones")
    return ends


def milliseconds(do: Callable[[], object], device: str, repeats: int) -> float:
    """The median, of a device that has done all before."""
    do()
    do()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            do()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            before = time.perf_counter()
            do()
            times.append((time.perf_counter() - before) * 1e3)
    return statistics.median(times)


def unseen(ends: torch.Tensor) -> torch.Tensor:
    places = torch.arange(ends.shape[1], device=ends.device)
    return (places > places.unsqueeze(1)) | (ends.unsqueeze(1) <= places.unsqueeze(1))


def additive(ends: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros((*ends.shape, ends.shape[1]), dtype=dtype, device=ends.device)
    return mask.masked_fill_(unseen(ends), torch.finfo(dtype).min).unsqueeze(1)


def blocks(ends: torch.Tensor) -> object:
    rows, length = ends.shape

    def is_seen(row: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return (key <= query) & (ends[row, key] > query)

    return create_block_mask(is_seen, rows, None, length, length, device=str(ends.device), _compile=True)


def matrices(shape: str, tokens: int, device: str, dtype: torch.dtype) -> Callable[[], object]:
    """A layer's projections of so many tokens."""
    c = SHAPES[shape]
    width, inner = c["hidden_size"], c["intermediate_size"]
    kv = width // c["num_attention_heads"] * c["num_key_value_heads"]
    hidden, wide = (torch.randn(tokens, size, device=device, dtype=dtype) for size in (width, inner))
    of_hidden = [torch.randn(width, size, device=device, dtype=dtype) for size in (width, kv, kv, width, inner, inner)]
    down = torch.randn(inner, width, device=device, dtype=dtype)
    return lambda: ([hidden @ weight for weight in of_hidden], wide @ down)


def report(shape: str, ends: torch.Tensor, given: argparse.Namespace) -> None:
    """Print a line for each kind of attention."""
    device, dtype, repeats = given.device, torch.bfloat16, given.repeats
    c = SHAPES[shape]
    heads, groups = c["num_attention_heads"], c["num_key_value_heads"]
    size = (ends.shape[0], heads, ends.shape[1], c["hidden_size"] // heads)
    query = torch.randn(size, device=device, dtype=dtype)
    few = [torch.randn(size[0], groups, *size[2:], device=device, dtype=dtype) for _ in range(2)]
    key, value = (one.repeat_interleave(heads // groups, 1) for one in few)
    mask = additive(ends, dtype)
    exact = scaled_dot_product_attention(query.float(), key.float(), value.float(), mask.float())

    def line(name: str, do: Callable[[], torch.Tensor], *, is_same: bool = True) -> None:
        try:
            off = float((do().float() - exact).norm() / exact.norm()) if is_same else float("nan")
            print(f"  {name:<34} {milliseconds(do, device, repeats):>8.3f} {off:>9.1e}", flush=True)
        except Exception as error:  # noqa: BLE001  # a kernel that is not for this
            print(f"  {name:<34} {type(error).__name__}: {str(error)[:70]}", flush=True)

    print(
        f"{shape}: {len(ends)} rows of {ends.shape[1]}; {float((~unseen(ends)).float().mean()):.3f} of pairs are seen"
    )
    print(f"  {'of one layer':<34} {'ms':>8} {'off by':>9}")
    print(f"  {'matrices':<34} {milliseconds(matrices(shape, ends.numel(), device, dtype), device, repeats):>8.3f}")
    line("mask, as torch chooses", lambda: scaled_dot_product_attention(query, key, value, mask))
    for backend in (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            line(f"mask, {backend.name.lower()}", lambda: scaled_dot_product_attention(query, key, value, mask))
    line(
        "causal, as torch chooses",
        lambda: scaled_dot_product_attention(query, *few, is_causal=True, enable_gqa=True),
        is_same=False,
    )
    made: list[tuple[str, Callable[[], object]]] = [("mask", lambda: additive(ends, dtype))]
    if given.flex:
        start = time.perf_counter()
        seen = blocks(ends)
        flex = torch.compile(flex_attention, dynamic=False)
        line("FlexAttention", lambda: flex(query, *few, block_mask=seen, enable_gqa=True))
        line("FlexAttention, heads repeated", lambda: flex(query, key, value, block_mask=seen))
        print(f"  ({time.perf_counter() - start:.1f} s, most of it to compile)")
        made.append(("blocks of FlexAttention", lambda: blocks(ends)))
    for name, make in made:
        print(f"  {name + ', once a pass':<34} {milliseconds(make, device, repeats):>8.3f}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="a mirror of the datasets")
    options.add_argument("--shapes", default="0.5B,7B")
    options.add_argument("--rows", default="256,1024", help="sizes of rows, in tokens")
    options.add_argument("--tokens", type=int, default=TOKENS, help="of the batch")
    options.add_argument("--repeats", type=int, default=30)
    options.add_argument("--device", default="cuda")
    options.add_argument("--no-flex", dest="flex", action="store_false")
    given = options.parse_args()
    scored = requests(given.data)
    for row in map(int, given.rows.split(",")):
        ends = ends_of(scored, row, given.tokens).to(given.device)
        for shape in given.shapes.split(","):
            report(shape, ends, given)


if __name__ == "__main__":
    main()

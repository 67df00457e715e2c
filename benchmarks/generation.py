"""What generation costs by the package's own loop, over stock hf: FLORES translation, in pairs, in one process.

    python benchmarks/generation.py --data MIRROR [--shape small|large|babel] [--device cuda --dtype bfloat16]
    python benchmarks/generation.py --data MIRROR --shape large --device cuda --dtype bfloat16 --static

Requests are real sentences of FLORES devtest in the prompt of amplify_flores_translate. `small` has 79 M parameters and
`large` 0.5 B with a vocabulary of 152 k, random weights, float32; `babel` is the embedded model. In the rows

- `all to the limit` no row ends before the greatest length, and amplified_hf sets a random 1 % of the neurons;
- `each its own end` rows end after as many tokens as their reference translation has, which a processor of logits sees
  to on both sides; both unamplified, so that they generate the same;
- `as it writes` (babel) rows end where the model ends them, at a full stop or newline.

Each pair runs stock hf and then amplified_hf on the same requests; the ratio of a pair cancels what the machine does
meanwhile, and the median over the pairs is the figure. Peak memory is of two further processes, one for each side;
on a GPU it is the device's. --static compares stock hf with itself instead, with transformers' static cache, and with
that and `torch.compile`, as transformers does by itself; the time of the first run is printed too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from overhead import build, tokenizer

from lm_eval_amplify.generation import OfRows
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.resources import embedded_model

PROMPT = "Translate the following sentence from English into Indonesian.\nEnglish: {}\nIndonesian:"


class Side(NamedTuple):
    """What makes a side's model."""

    pretrained: Any
    shared: dict[str, Any]
    neurons: NeuronFile | None

    def stock(self) -> HFLM:
        """The harness's model."""
        return HFLM(self.pretrained, **self.shared)

    def own(self, *, amplified: bool = False) -> AmplifiedHFLM:
        """This package's, with its own loop."""
        neurons = {"neurons": self.neurons, "language": "ind_Latn"} if amplified else {}
        return AmplifiedHFLM(self.pretrained, **neurons, **self.shared)


class EndsAsPlanned(OfRows):
    """Makes each row end after its own number of tokens, known by the end of its prompt."""

    def __init__(self, plan: dict[tuple[int, ...], int], eos: int) -> None:
        self._plan = plan
        self._eos = eos
        self._lengths: torch.Tensor | None = None
        self._prompt = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores ``[rows, vocabulary]``, the end of a text first in rows that end and last in the others."""
        if self._lengths is None:
            self._prompt = input_ids.shape[1]
            lengths = [self._plan[key_of(row)] for row in input_ids.tolist()]
            self._lengths = torch.tensor(lengths, device=input_ids.device)
        lengths = self._lengths if self.rows is None else self._lengths[self.rows]
        is_last = lengths <= input_ids.shape[1] - self._prompt + 1
        scores[:, self._eos] = torch.where(is_last, scores.amax(dim=1) + 1, -torch.inf)
        return scores


def key_of(tokens: list[int]) -> tuple[int, ...]:
    return tuple(tokens[-24:])


def sentences(data: Path, language: str, count: int) -> list[str]:
    with gzip.open(data / f"facebook/flores/{language}/devtest.jsonl.gz", "rt") as lines:
        return [json.loads(line)["sentence"] for line in lines][:count]


def large() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def neurons(model: transformers.PreTrainedModel) -> NeuronFile:
    """A random 1 % of all, with the statistic 1."""
    layers, d_ff = model.config.num_hidden_layers, model.config.intermediate_size
    chosen = np.sort(np.random.default_rng(0).choice(layers * d_ff, layers * d_ff // 100, replace=False))
    own = LanguageNeurons(
        (chosen // d_ff).astype(np.int32), (chosen % d_ff).astype(np.int32), {"max": np.ones(len(chosen), np.float32)}
    )
    manifest = Manifest(
        num_layers=layers, intermediate_size=d_ff, method="random", package_version="0", languages=("ind_Latn",)
    )
    return NeuronFile(manifest, {"ind_Latn": own})


def side(given: argparse.Namespace) -> Side:
    data, batch_size = given.data, given.batch_size
    if given.shape == "babel":
        return Side(embedded_model("babel"), {"batch_size": batch_size, "device": given.device}, None)
    with torch.device(given.device):
        model = (build() if given.shape == "small" else large()).to(getattr(torch, given.dtype))
    own_tokenizer = tokenizer(sentences(data, "eng_Latn", 1012) + sentences(data, "ind_Latn", 1012))
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, own_tokenizer.eos_token_id)
    return Side(model, {"batch_size": batch_size, "tokenizer": own_tokenizer}, neurons(model))


def requests(given: argparse.Namespace, row: str, lm: HFLM) -> list[Instance]:
    sources, references = (sentences(given.data, code, given.requests) for code in ("eng_Latn", "ind_Latn"))
    options: dict[str, Any] = {"until": ["\n"], "max_gen_toks": given.tokens, "do_sample": False}
    prompts = [PROMPT.format(source) for source in sources]
    eos = lm.tokenizer.eos_token_id
    if row == "as it writes":
        options["until"] = ["\n", "."]
        prompts = [source.split()[0] for source in sources]  # babel knows no more than its own short sentences
    elif row == "all to the limit":
        options |= {"until": [], "suppress_tokens": [eos]}
    else:
        plan = {
            key_of(lm.tok_encode(prompt)): min(given.tokens, len(lm.tok_encode(reference)))
            for prompt, reference in zip(prompts, references, strict=True)
        }
        options["logits_processor"] = [EndsAsPlanned(plan, eos)]
    return [Instance("generate_until", {}, (prompt, options), 0, ("bench", i, 1)) for i, prompt in enumerate(prompts)]


class Run(NamedTuple):
    """What a run took and gave."""

    wall: float
    cpu: float
    texts: list[str]


def run(lm: HFLM, batch: list[Instance]) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    texts = lm.generate_until(batch, disable_tqdm=True)
    return Run(time.perf_counter() - wall, time.process_time() - cpu, texts)


def resident(name: str) -> int:
    """Memory of this process in KiB: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def memory_of(given: argparse.Namespace, row: str, which: str) -> float:
    """Peak of a process that runs one side once, above what it had before, in MiB."""
    arguments = [f"--{name}={getattr(given, name)}" for name in ("data", "shape", "requests", "tokens")]
    arguments += [f"--batch-size={given.batch_size}", f"--memory-of={which}", f"--row={row}"]
    # What is freed goes back at once, so that resident is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return float(done.stdout.splitlines()[-1])


def memory_of_device(lm: HFLM, batch: list[Instance]) -> float:
    """Peak of a GPU's memory in a run, above what it held before, in MiB."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(lm, batch)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def compare_static(given: argparse.Namespace, made: Side) -> None:
    """Print what stock generation takes with a cache that grows, with a static one, and compiled."""
    lm, own = made.stock(), made.own()
    batch = requests(given, "all to the limit", lm)
    kinds: dict[str, tuple[HFLM, dict[str, Any]]] = {
        "hf": (lm, {}),
        "own loop": (own, {}),
        "hf, static cache": (lm, {"cache_implementation": "static", "disable_compile": True}),
        "hf, static cache, compiled": (lm, {"cache_implementation": "static"}),
    }
    print(f"{'':<28} {'s':>7} {'first':>7} {'differ':>6}")
    expected = run(lm, batch).texts
    for name, (side_of, further) in kinds.items():
        changed = [
            Instance(one.request_type, {}, (one.args[0], one.args[1] | further), 0, ("bench", number, 1))
            for number, one in enumerate(batch)
        ]
        runs = [run(side_of, changed) for _ in range(given.pairs + 1)]
        later = statistics.median(one.wall for one in runs[1:])
        differ = sum(one != other for one, other in zip(expected, runs[-1].texts, strict=True))
        print(f"{name:<28} {later:>7.2f} {runs[0].wall:>7.2f} {differ:>6}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="mirror with facebook/flores")
    options.add_argument("--shape", choices=("small", "large", "babel"), default="small")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--requests", type=int, default=64)
    options.add_argument("--tokens", type=int, default=128, help="greatest number of new tokens")
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--row", help="only this one")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", default="float32")
    options.add_argument("--static", action="store_true", help="what a static cache and torch.compile do to stock hf")
    options.add_argument("--memory-of", choices=("stock", "own"), help=argparse.SUPPRESS)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()

    made = side(given)
    if given.static:
        compare_static(given, made)
        return
    if given.memory_of:
        lm = made.stock() if given.memory_of == "stock" else made.own(amplified=given.row == "all to the limit")
        batch = requests(given, given.row, lm)
        run(lm, batch[:1])
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
        run(lm, batch)
        print((resident("VmHWM") - before) / 1024)
        return

    print(
        f"{given.shape}: {given.requests} requests in batches of {given.batch_size}, {given.tokens} new tokens at most"
    )
    print(f"{torch.get_num_threads()} threads; ratios are of seconds and of CPU seconds, memory is in MiB")
    names = f"{'ratio':>6} {'min':>6} {'max':>6} {'of CPU':>6} {'min':>6} {'max':>6} {'differ':>6}"
    print(f"{'row':<18} {names} {'memory: hf, own':>16}")
    rows = ["as it writes"] if given.shape == "babel" else ["all to the limit", "each its own end"]
    for row in rows if given.row is None else [given.row]:
        stock, own = made.stock(), made.own(amplified=row == "all to the limit")
        batch = requests(given, row, stock)
        for lm in (stock, own):
            run(lm, batch[: given.batch_size])  # warm-up
        pairs = [(run(stock, batch), run(own, batch)) for _ in range(given.pairs)]
        wall = [after.wall / before.wall for before, after in pairs]
        cpu = [after.cpu / before.cpu for before, after in pairs]
        figures = " ".join(f"{of(ratios):>6.3f}" for ratios in (wall, cpu) for of in (statistics.median, min, max))
        differ = sum(one != other for one, other in zip(pairs[0][0].texts, pairs[0][1].texts, strict=True))
        if given.device == "cpu":
            memory = [memory_of(given, row, which) for which in ("stock", "own")]
        else:
            memory = [memory_of_device(lm, batch) for lm in (stock, own)]
        print(f"{row:<18} {figures} {differ:>6} {memory[0]:>8.0f}{memory[1]:>8.0f}", flush=True)


if __name__ == "__main__":
    main()

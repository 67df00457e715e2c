"""What amplification costs at run time: amplified_hf over hf on the same requests, in pairs, in one process.

    python benchmarks/overhead.py --data MIRROR

The model has the shape of a 79 M-parameter Qwen2 with random weights in float32; the neurons are a random 1 % of all.
Each pair runs hf and then one condition on the same real XCOPA requests; the ratio of a pair cancels what the machine
does meanwhile. The median over the pairs is the figure. ``--cpu-time`` counts the process's own seconds instead of the
clock's: for one thread beside other work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

LAYERS, D_FF = 12, 2048
CONDITIONS = {
    "hf again": None,
    "scale, folded": {"operation": "scale", "factor": 2.5},
    "scale, hooked": {"operation": "scale", "factor": 2.5, "mode": "hook"},
    "set": {"operation": "set", "factor": 1},
    "add": {"operation": "add", "factor": 1},
    "set, prompt": {"operation": "set", "factor": 1, "positions": "prompt"},
    "set, generated": {"operation": "set", "factor": 1, "positions": "generated"},
    "add, generated": {"operation": "add", "factor": 1, "positions": "generated"},
    "scale, prompt": {"operation": "scale", "factor": 2.5, "positions": "prompt"},
    "paper_max": {"preset": "paper_max"},
    "paper_10p": {"preset": "paper_10p"},
}


def requests(data: Path, count: int) -> list[Instance]:
    rows = [json.loads(line) for line in (data / "cambridgeltl/xcopa/id/test.jsonl").read_text().splitlines()]
    return [
        Instance("loglikelihood", {}, (f"{row['premise'][:-1]} maka", f" {row[choice]}"), 0, ("bench", i, 1))
        for i, row in enumerate(rows[:count])
        for choice in ("choice1", "choice2")
    ]


def tokenizer(texts: list[str]) -> transformers.PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=4000, special_tokens=["<|end|>"]))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>")


def build() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=32000,
        hidden_size=512,
        intermediate_size=D_FF,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
    )
    return transformers.AutoModelForCausalLM.from_config(config).float().eval()


def neurons() -> NeuronFile:
    chosen = np.sort(np.random.default_rng(0).choice(LAYERS * D_FF, LAYERS * D_FF // 100, replace=False))
    own = LanguageNeurons(
        (chosen // D_FF).astype(np.int32),
        (chosen % D_FF).astype(np.int32),
        {"max": np.ones(len(chosen), np.float32)},
    )
    manifest = Manifest(
        num_layers=LAYERS, intermediate_size=D_FF, method="random", package_version="0", languages=("ind_Latn",)
    )
    return NeuronFile(manifest, {"ind_Latn": own})


def seconds(lm: HFLM, batch: list[Instance], clock: Callable[[], float]) -> float:
    start = clock()
    lm.loglikelihood(batch, disable_tqdm=True)
    return clock() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="mirror with cambridgeltl/xcopa/id")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--documents", type=int, default=100)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--only", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), help="conditions")
    options.add_argument("--cpu-time", action="store_true", help="the process's seconds instead of the clock's")
    given = options.parse_args()

    clock = time.process_time if given.cpu_time else time.perf_counter
    batch = requests(given.data, given.documents)
    model, own_tokenizer = build(), tokenizer([text for request in batch for text in request.args])
    print(f"{model.num_parameters() / 1e6:.0f} M parameters, {len(batch)} requests, {torch.get_num_threads()} threads")
    shared = {"tokenizer": own_tokenizer, "batch_size": given.batch_size}
    plain = HFLM(model, **shared)
    content = neurons()
    print(f"{'condition':<15} {'median ratio':>12} {'min':>6} {'max':>6} {'hf, s':>7}")
    for name in given.only:
        arguments = CONDITIONS[name]
        other = plain
        if arguments is not None:
            other = AmplifiedHFLM(model, neurons=content, language="ind_Latn", **arguments, **shared)
        seconds(other, batch, clock)  # warm-up
        pairs = [(seconds(plain, batch, clock), seconds(other, batch, clock)) for _ in range(given.pairs)]
        ratios = sorted(after / before for before, after in pairs)
        base = statistics.median(before for before, _ in pairs)
        print(f"{name:<15} {statistics.median(ratios):>12.3f} {ratios[0]:>6.3f} {ratios[-1]:>6.3f} {base:>7.2f}")


if __name__ == "__main__":
    main()

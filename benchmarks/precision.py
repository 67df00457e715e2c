"""What bfloat16 and float16 do to amplified log-likelihoods: folded, hooked and unamplified against float32.

    python benchmarks/precision.py --data MIRROR

The model and the neurons are those of overhead.py, with random weights; the requests are real XCOPA's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from overhead import build, neurons, requests, tokenizer

from lm_eval_amplify.models.hf import AmplifiedHFLM

CONDITIONS = {
    "unamplified": {"operation": "scale", "factor": 1},
    "scale 2.5, folded": {"operation": "scale", "factor": 2.5, "mode": "fold"},
    "scale 2.5, hooked": {"operation": "scale", "factor": 2.5, "mode": "hook"},
    "set 1": {"operation": "set", "factor": 1},
    "add 1": {"operation": "add", "factor": 1},
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="mirror with cambridgeltl/xcopa/id")
    options.add_argument("--documents", type=int, default=24)
    given = options.parse_args()
    batch = requests(given.data, given.documents)
    own_tokenizer = tokenizer([text for request in batch for text in request.args])
    content = neurons()
    exact: dict[str, np.ndarray] = {}
    print("| type | condition | mean log-likelihood | mean difference | largest | largest, relative |")
    print("| --- | --- | --- | --- | --- | --- |")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = build().to(dtype)
        for name, arguments in CONDITIONS.items():
            lm = AmplifiedHFLM(
                model, neurons=content, language="ind_Latn", tokenizer=own_tokenizer, batch_size=8, **arguments
            )
            found = np.array([value for value, _ in lm.loglikelihood(batch, disable_tqdm=True)])
            if {parameter.dtype for parameter in model.parameters()} != {dtype}:
                raise SystemExit(f"a weight is no longer {dtype}")
            difference = np.abs(found - exact.setdefault(name, found))
            print(
                f"| {str(dtype).removeprefix('torch.')} | {name} | {found.mean():.3f} | {difference.mean():.2g} "
                f"| {difference.max():.2g} | {(difference / np.abs(exact[name])).max():.1g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

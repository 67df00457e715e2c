"""One of several processes of a run: ``python -m torch.distributed.run ... lss_worker.py ARGUMENTS OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lss_runs import evaluate

from lm_eval_amplify.models.hf import AmplifiedHFLM


def main(arguments: dict, out: Path) -> None:
    lm = AmplifiedHFLM(**arguments["model"], device="cpu", batch_size=1)
    assert lm.world_size == 2
    results = evaluate(lm, None, arguments["tasks"], arguments["metadata"])
    scored = {"rank": lm.rank, "remembered": len(lm._remembered)}
    again = evaluate(lm, None, arguments["again"]["tasks"], arguments["again"]["metadata"])
    if results is not None and again is not None:
        scored |= {"results": results["results"], "samples": results["samples"], "again": again["results"]}
    out.with_suffix(f".{lm.rank}.json").write_text(json.dumps(scored, default=str), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))

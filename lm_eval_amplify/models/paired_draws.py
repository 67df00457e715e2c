"""Sampled generations of both sides from the same random numbers, so that what differs is the intervention alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

Method: TypeAlias = Callable[..., list[Any]]


class PairedDraws(LM):  # type: ignore[misc]  # the harness is untyped
    """Mixed in before a harness model that generates with transformers.

    In a run made by :meth:`paired` each batch is drawn from a seed of its own: of the seed of the run (the harness sets
    torch's), of the batch's prompts as tokens, and of how often the run has drawn for these prompts. Two runs over the
    same prompts, one amplified and one not, thus see the same random numbers at each step and row. Elsewhere, and in
    greedy decoding, nothing changes; the random numbers of the caller are left as they were.
    """

    _draws: Counter[bytes] | None = None

    def paired(self, method: Method) -> Method:
        """Return a method of requests that draws in pairs.

        Args:
            method: The harness model's own ``generate_until``. In one process it gets each task's requests by
                themselves: the batches of one side hold other tasks' prompts than those of the other, where not every
                task has the same targets.
        """

        def run(requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
            answers: list[Any] = [None] * len(requests)
            for positions in self._parts(requests):
                self._draws = Counter()
                try:
                    found = method([requests[position] for position in positions], disable_tqdm=disable_tqdm)
                finally:
                    self._draws = None
                for position, answer in zip(positions, found, strict=True):
                    answers[position] = answer
            return answers

        return run

    def _parts(self, requests: list[Instance]) -> list[list[int]]:
        """Positions of the requests that run together; calls of some methods must be as many in every process."""
        parts: dict[str | None, list[int]] = {}
        for position, request in enumerate(requests):
            part = request.task_name if self.world_size == 1 and is_sampled(request) else None
            parts.setdefault(part, []).append(position)
        return list(parts.values())

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
        generate = super()._model_generate
        if self._draws is None or not options.get("do_sample"):
            return generate(context, max_length, stop=stop, **options)
        prompts = context.cpu().numpy().tobytes()
        number = self._draws[prompts]
        self._draws[prompts] += 1
        digest = hashlib.sha256(f"{torch.initial_seed()} {number} {tuple(context.shape)} ".encode() + prompts)
        with torch.random.fork_rng([context.device] if context.is_cuda else []):
            torch.manual_seed(int.from_bytes(digest.digest()[:7], "big"))
            return generate(context, max_length, stop=stop, **options)


def is_sampled(request: Instance) -> bool:
    """Return whether a request's generation is drawn.

    The harness's rule: a temperature above 0 samples where ``do_sample`` is not given.
    """
    options = request.args[1] if len(request.args) > 1 else None
    if not isinstance(options, dict):
        return False
    return bool(options.get("do_sample", float(options.get("temperature") or 0) > 0))

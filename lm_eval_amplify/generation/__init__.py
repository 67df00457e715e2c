"""Greedy generation in which a row leaves the batch as soon as it ends; what is generated stays the harness's."""

from lm_eval_amplify.generation.generator import Generator
from lm_eval_amplify.generation.loop import GreedyLoop, OfRows, UnsuitedError

__all__ = ["Generator", "GreedyLoop", "OfRows", "UnsuitedError"]

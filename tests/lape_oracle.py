"""LAPE once more, slowly: plain loops over lists, sharing nothing with the package."""

from __future__ import annotations

import math


def select(
    over_zero: list[list[list[int]]],
    tokens: list[int],
    top_rate: float,
    filter_rate: float,
    activation_bar_ratio: float,
) -> list[list[tuple[int, int]]]:
    """The (layer, index) of each language's neurons; ``over_zero`` is by layer, index, language."""
    probability = {}
    for layer, row in enumerate(over_zero):
        for index, numbers in enumerate(row):
            probability[layer, index] = [number / read for number, read in zip(numbers, tokens, strict=True)]
    everything = sorted(p for own in probability.values() for p in own)
    least = everything[max(1, round(len(everything) * filter_rate)) - 1]
    bar = everything[max(1, round(len(everything) * activation_bar_ratio)) - 1]
    candidates = []
    for (layer, index), own in probability.items():
        if max(own) > least and sum(own) > 0:
            candidates.append((round(nats(own), 9), layer, index))
    candidates.sort()
    chosen = candidates[: round(len(probability) * top_rate)]
    return [
        sorted((layer, index) for _, layer, index in chosen if probability[layer, index][language] > bar)
        for language in range(len(tokens))
    ]


def nats(own: list[float]) -> float:
    """Entropy of a neuron's probabilities over the languages."""
    total = math.fsum(own)
    return -math.fsum(p / total * math.log(p / total) for p in own if p > 0)

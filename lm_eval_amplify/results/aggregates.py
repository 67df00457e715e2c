"""How a metric comes from its documents, found out by what reproduces the number that a run reported.

Results name the aggregation of few metrics, and a task's own class none. So every known one is tried: one that gives
the reported number is used, and where none does the metric cannot be paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from lm_eval_amplify.results.stats import RESAMPLES, Array, Paired

RESAMPLES_OF_TEXTS = 1000
"""Of a bootstrap of a corpus score, which is some hundred times as slow as a mean; as many as sacrebleu's own."""

_CLOSE = 1e-9
_TOKENIZERS = ("13a", "zh", "char", "ja-mecab", "ko-mecab", "flores200", "flores101", "intl", "none")


_Value: TypeAlias = Callable[[Array], Array]


class Reported(NamedTuple):
    """A metric of one run."""

    values: Sequence[Any]
    """One for each document, as samples have them: numbers, pairs of numbers (log-likelihood, weight), or pairs of
    texts (what was written and its reference, or the other way round)."""
    value: float
    """What the run reported over all of them."""


class _Aggregate(NamedTuple):
    """A metric as a function of sums over documents."""

    name: str
    terms: Array
    """What is summed, ``[documents, terms]``."""
    value: _Value
    """The metric from sums ``[..., terms]``, ``[...]``."""


def pair_documents(metric: str, old: Reported, new: Reported, signature: str = "") -> Paired | None:
    """Return a metric of two runs as sums over documents, or None where no known aggregation makes both numbers.

    Args:
        metric: Name, which says which corpus score texts are for.
        old: Of the old run.
        new: Of the new run, the same documents in the same order.
        signature: Of sacrebleu, where the results have one.
    """
    for one, other in zip(*(_candidates(metric, side.values, signature) for side in (old, new)), strict=False):
        if one.name == other.name and _makes(one, old.value) and _makes(other, new.value):
            resamples = RESAMPLES if one.value in _QUICK else RESAMPLES_OF_TEXTS
            scale = np.log if one.value is _perplexity else np.asarray
            return Paired(one.terms, other.terms, one.value, one.value is _mean, scale, resamples)
    return None


def _makes(candidate: _Aggregate, reported: float) -> bool:
    with np.errstate(all="ignore"):
        value = float(candidate.value(candidate.terms.sum(axis=0)))
    return math.isclose(value, reported, rel_tol=_CLOSE, abs_tol=_CLOSE)


def _candidates(metric: str, values: Sequence[Any], signature: str) -> Iterator[_Aggregate]:
    if all(isinstance(value, (int, float)) for value in values):
        numbers = np.asarray(values, np.float64)
        known = ~np.isnan(numbers)
        terms = np.stack([np.where(known, numbers, 0.0), known], axis=-1).astype(np.float64)
        for name, value in _OF_NUMBERS.items():
            yield _Aggregate(name, terms, value)
    elif all(_is_pair(value, (int, float)) for value in values):
        for name, value in _OF_PAIRS.items():
            yield _Aggregate(name, np.asarray(values, np.float64), value)
    elif all(_is_pair(value, str) for value in values):
        score = _corpus_score(metric, signature)
        if score is not None:
            for name, written in (("of the harness", 1), ("ours", 0)):
                yield _of_texts(name, score, [v[written] for v in values], [v[1 - written] for v in values])


def _mean(sums: Array) -> Array:
    return np.where(sums[..., 1] > 0, sums[..., 0] / np.maximum(sums[..., 1], 1e-300), np.nan)


def _perplexity(sums: Array) -> Array:
    return np.exp(-sums[..., 0] / sums[..., 1])


def _bits(sums: Array) -> Array:
    return -sums[..., 0] / sums[..., 1] / math.log(2)


def _percent(sums: Array) -> Array:
    return 100 * _mean(sums)


def _sum(sums: Array) -> Array:
    return sums[..., 0]


_OF_NUMBERS: dict[str, _Value] = {"mean": _mean, "perplexity": _perplexity, "percent": _percent, "sum": _sum}
_OF_PAIRS: dict[str, _Value] = {"bits_per_byte": _bits, "weighted_perplexity": _perplexity}
_QUICK = frozenset({*_OF_NUMBERS.values(), *_OF_PAIRS.values()})


def _is_pair(value: Any, kind: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(one, kind) for one in value)


def _corpus_score(metric: str, signature: str) -> Metric | None:
    """The score of sacrebleu that a metric of this name is, as the harness and our tasks make it."""
    if metric.startswith("bleu"):
        try:
            return BLEU(tokenize=next((name for name in _TOKENIZERS if f"|tok:{name}" in signature), None))
        except (KeyError, RuntimeError, ValueError):  # a tokenizer that is not installed here
            return None
    makers: dict[str, Callable[[], Metric]] = {"chrf": CHRF, "chrf++": partial(CHRF, word_order=2), "ter": TER}
    return makers[metric]() if metric in makers else None


def _of_texts(name: str, score: Metric, written: Sequence[str], references: Sequence[str]) -> _Aggregate:
    statistics = score._extract_corpus_statistics(written, [references])  # noqa: SLF001  # nothing public has them
    terms = np.asarray(statistics, np.float64)

    def value(sums: Array) -> Array:
        rows = sums.reshape(-1, terms.shape[1]).tolist()
        made = [score._compute_score_from_stats(row).score for row in rows]  # noqa: SLF001
        return np.asarray(made, np.float64).reshape(sums.shape[:-1])

    return _Aggregate(name, terms, value)

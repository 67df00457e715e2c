"""Whether two results differ: paired by document where both logged them, else by their standard errors.

A metric is taken as a function of sums over documents (:mod:`~lm_eval_amplify.results.aggregates`): a mean, a
perplexity, BLEU. So documents can be drawn again (the bootstrap) and left out one at a time (the jackknife) by
arithmetic on the sums. scipy is in the extra ``report``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import ResultsError

Array: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["mcnemar", "paired", "stderr"]

RESAMPLES = 10_000
"""Of a bootstrap. The ends of a 95 % interval are then themselves known to about 2 % of its width."""

_AT_ONCE = 2_000_000  # numbers of a chunk of resamples: what fits into the processor's cache is drawn fastest


class Difference(NamedTuple):
    """New minus old."""

    difference: float
    low: float
    """Lower end of the confidence interval."""
    high: float
    p: float
    """How likely so great a difference is, in either direction, if there is none; not corrected for other tests."""
    method: Method
    """``mcnemar``: exact, of documents right or wrong; ``paired``: t test with the jackknife's standard error over
    documents; ``stderr``: of two independent samples, by their standard errors."""
    documents: int | None
    """Pairs of documents; None where there are none."""


class Paired(NamedTuple):
    """A metric of two runs over the same documents."""

    old: Array
    """What is summed, ``[documents, terms]``; of both runs in the same order."""
    new: Array
    value: Callable[[Array], Array]
    """The metric from sums ``[..., terms]``, ``[...]``."""
    is_mean: bool = False
    """Whether the metric is the mean of the first term."""
    scale: Callable[[Array], Array] = np.asarray
    """What the metric is tested on the scale of: the logarithm of a perplexity, whose errors are lopsided."""
    resamples: int = RESAMPLES
    weight: float = 1.0
    """Of this task in a group's mean."""

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of documents, each of them right or wrong."""
        sides = (self.old, self.new)
        return self.is_mean and all(np.isin(one[:, 0], (0, 1)).all() and np.all(one[:, 1] == 1) for one in sides)


def paired_difference(parts: Sequence[Paired], *, confidence: float = 0.95, seed: int = 0) -> Difference | None:
    """Return the difference of a metric, of a task or of a weighted mean over tasks.

    The interval is that of the percentile bootstrap over documents, drawn within each task. Documents of different
    tasks count as independent, as in the harness's own standard errors of groups.

    Args:
        parts: One for a task; for a group one of each task, with its weight.
        confidence: Of the interval.
        seed: Gives the same interval each time.

    Returns:
        None where fewer than two documents make it impossible to say.

    Raises:
        ResultsError: scipy is not installed.
    """
    if min(len(part.old) for part in parts) < 2:
        return None
    # An infinite perplexity in some resample is its value, no mistake.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        difference = sum(part.weight * _whole(part, np.asarray) for part in parts)
        random = np.random.default_rng(seed)
        resamples = min(part.resamples for part in parts)
        drawn = np.sum([part.weight * _resampled(part, resamples, random) for part in parts], axis=0)
        if len(parts) > 1:
            parts = [part._replace(scale=np.asarray) for part in parts]  # the mean is of the metric itself
        tested = sum(part.weight * _whole(part, part.scale) for part in parts)
        errors = [part.weight * _jackknife_error(part) for part in parts]
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    documents = sum(len(part.old) for part in parts)
    if len(parts) == 1 and parts[0].is_share:
        method: Method = "mcnemar"
        p = mcnemar(parts[0].old[:, 0], parts[0].new[:, 0])
    else:
        method = "paired"
        p = _t_test(tested, math.hypot(*errors), documents - len(parts))
    return Difference(float(difference), float(low), float(high), p, method, documents)


def unpaired_difference(
    old: float, old_stderr: float, new: float, new_stderr: float, *, confidence: float = 0.95
) -> Difference:
    """Return the difference of two independent numbers, normally distributed with these standard errors.

    Raises:
        ResultsError: scipy is not installed.
    """
    difference, error = new - old, math.hypot(old_stderr, new_stderr)
    half = float(_scipy_stats().norm.ppf((1 + confidence) / 2)) * error
    return Difference(
        difference, difference - half, difference + half, _t_test(difference, error, math.inf), "stderr", None
    )


def mcnemar(old: Array, new: Array) -> float:
    """Return the p-value of McNemar's exact test: are as many documents lost as won?

    Args:
        old: 1 where the old run has a document right, 0 where wrong, ``[documents]``.
        new: Likewise.

    Raises:
        ResultsError: scipy is not installed.
    """
    won, lost = int(np.sum(new > old)), int(np.sum(new < old))
    return float(_scipy_stats().binomtest(won, won + lost).pvalue) if won + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values: with all below alpha taken for real, any is wrong in at most alpha of all runs.

    Holm 1979, "A simple sequentially rejective multiple test procedure". It needs no independence of the tests.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def _whole(part: Paired, scale: Callable[[Array], Array]) -> float:
    new, old = (scale(part.value(terms.sum(axis=0))) for terms in (part.new, part.old))
    return float(new - old)


def _resampled(part: Paired, resamples: int, random: np.random.Generator) -> Array:
    """Differences over documents drawn with replacement, the same ones of both runs."""
    documents, terms = part.old.shape
    both = np.hstack([part.old, part.new])
    rows = max(1, _AT_ONCE // documents)
    found = []
    for start in range(0, resamples, rows):
        number = min(rows, resamples - start)
        drawn = random.integers(0, documents, (number, documents)) + documents * np.arange(number)[:, None]
        times = np.bincount(drawn.ravel(), minlength=number * documents).reshape(number, documents)
        sums = times.astype(np.float64) @ both
        found.append(part.value(sums[:, terms:]) - part.value(sums[:, :terms]))
    return np.concatenate(found)


def _jackknife_error(part: Paired) -> float:
    """Standard error of the difference from its values without each document; of a mean the usual one exactly."""
    new, old = (part.scale(part.value(terms.sum(axis=0) - terms)) for terms in (part.new, part.old))
    left = new - old
    number = len(left)
    return float(np.sqrt((number - 1) / number * np.sum((left - left.mean()) ** 2)))


def _t_test(difference: float, error: float, freedom: float) -> float:
    # Equal up to rounding in every document: the error is what is left of 0.
    if error <= 1e-12 * abs(difference) or error == 0:
        return 0.0 if difference else 1.0
    if not math.isfinite(error):
        return 1.0
    return float(2 * _scipy_stats().t.sf(abs(difference) / error, freedom))  # infinite freedom: the normal distribution


def _scipy_stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ResultsError("comparing results takes scipy: pip install 'lm-eval-amplify[report]'") from error
    return stats

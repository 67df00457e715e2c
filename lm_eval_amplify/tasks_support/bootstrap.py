"""Standard errors by bootstrap over documents, where the harness offers none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_SEED = 0
_AT_ONCE = 4_000_000
_Array: TypeAlias = NDArray[np.float64]


def bootstrap_stderr(values: Sequence[float], *, resamples: int = RESAMPLES) -> float | Literal["N/A"]:
    """Return the standard error of the mean of the values that are not NaN, by resampling all of them.

    Args:
        values: One per document, in any order: they are sorted, so that several processes give what one
            gives. NaN: no value, drawn like the others and left out of a resample's mean.
        resamples: How many. With 10,000 the standard error is itself known to about 0.7 %.

    Returns:
        Standard deviation of the resamples' means; ``N/A``, as the harness writes it, with fewer than two
        values.
    """
    ordered = np.sort(np.asarray(values, np.float64))  # NaN last
    known = ~np.isnan(ordered)
    if known.sum() < 2:
        return "N/A"
    means = _resampled_ratios(np.where(known, ordered, 0.0), known.astype(np.float64), resamples)
    return float(means.std(ddof=1))


def ratio_stderr(
    pairs: Sequence[tuple[float, float]],
    statistic: Callable[[_Array], _Array],
    *,
    resamples: int = RESAMPLES,
) -> float | Literal["N/A"]:
    """Return the standard error of a function of (sum of the first) / (sum of the second), by resampling pairs.

    Args:
        pairs: One per document, in any order; the second positive.
        statistic: The function, of an array of ratios.
        resamples: As in :func:`bootstrap_stderr`.

    Returns:
        Standard deviation over the resamples; ``N/A`` with fewer than two pairs, or where it is no number.
    """
    if len(pairs) < 2:
        return "N/A"
    first, second = np.asarray(sorted(pairs), np.float64).T
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(statistic(_resampled_ratios(first, second, resamples)).std(ddof=1))
    return error if np.isfinite(error) else "N/A"


def _resampled_ratios(numerators: _Array, denominators: _Array, resamples: int) -> _Array:
    """Ratios of the sums over documents drawn with replacement, where the denominator is not 0."""
    random = np.random.default_rng(_SEED)
    rows = max(1, _AT_ONCE // len(numerators))
    ratios = []
    for start in range(0, resamples, rows):
        drawn = random.integers(0, len(numerators), (min(rows, resamples - start), len(numerators)))
        below = denominators[drawn].sum(axis=1)
        ratios.append((numerators[drawn].sum(axis=1) / np.where(below > 0, below, 1.0))[below > 0])
    return np.concatenate(ratios)

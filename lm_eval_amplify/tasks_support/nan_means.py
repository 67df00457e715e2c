"""Means over the documents that have a value; NaN says that a document has none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal


def nan_mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN, or NaN; exactly rounded, so in any order the same."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def nan_mean_stderr(values: Iterable[float]) -> float | Literal["N/A"]:
    """Return the standard error of :func:`nan_mean`: sample standard deviation over the root of their number.

    It is the harness's for a mean, of the values that are not NaN; ``N/A`` with fewer than two.
    """
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return "N/A"
    mean = math.fsum(known) / len(known)
    squares = math.fsum((value - mean) ** 2 for value in known)
    return math.sqrt(squares / (len(known) - 1) / len(known))

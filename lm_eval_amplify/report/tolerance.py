"""How great a difference does not matter: absolute or relative, for all metrics or for some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.results.rows import Row

_ROUNDING = 1e-12  # 0.51 - 0.50 is more than 0.01


class _Limit(NamedTuple):
    pattern: str
    size: float
    is_relative: bool


class Tolerance(NamedTuple):
    """What may differ. The last limit that is for a metric holds."""

    limits: tuple[_Limit, ...] = (_Limit("*", 0.01, False),)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Tolerance:
        """Return the tolerance that texts say, after the default of 0.01 for all metrics.

        >>> str(Tolerance.parse(["0.02", "word_perplexity=1%"]))
        '0.02, word_perplexity=1%'

        Raises:
            ResultsError: A text is no such thing.
        """
        return cls((*cls().limits, *map(_limit, texts)))

    def is_exceeded(self, old: Row, change: float) -> bool:
        """Return whether a metric's change from its old value is more than may be."""
        limit = next(one for one in reversed(self.limits) if _is_for(one, old))
        allowed = limit.size * abs(old.value) if limit.is_relative else limit.size
        return abs(change) > allowed + _ROUNDING * max(1.0, abs(old.value))

    def __str__(self) -> str:
        """As it was given."""
        shown = [f"{100 * one.size:g}%" if one.is_relative else f"{one.size:g}" for one in self.limits]
        given = [
            text if one.pattern == "*" else f"{one.pattern}={text}"
            for one, text in zip(self.limits, shown, strict=True)
        ]
        return ", ".join(given[1:] if len(given) > 1 and self.limits[1].pattern == "*" else given)


def _is_for(limit: _Limit, row: Row) -> bool:
    return any(fnmatchcase(name, limit.pattern) for name in (row.metric, row.name))


def _limit(text: str) -> _Limit:
    pattern, _, number = text.rpartition("=")
    is_relative = number.endswith("%")
    try:
        size = float(number.removesuffix("%")) / (100 if is_relative else 1)
    except ValueError:
        size = math.nan
    if not (math.isfinite(size) and size >= 0):
        raise ResultsError(f"tolerance {text!r}: expected a number from 0 such as 0.01, 1%, or METRIC=0.01")
    return _Limit(pattern or "*", size, is_relative)

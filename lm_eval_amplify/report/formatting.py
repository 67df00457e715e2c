"""Numbers as tables show them."""

from __future__ import annotations

import math
import re

_ROUNDING = 1e-12
_HASH = re.compile(r"(sha256:|commit:)([0-9a-f]{12})[0-9a-f]+")


def show(value: float | None, *, digits: int = 4, sign: bool = False) -> str:
    """Return a number with four decimals, or with four digits where it is great or tiny; nothing for None.

    >>> [show(0.5), show(-0.012345, sign=True), show(184.66039), show(6.02e12), show(3e-7), show(float("nan"))]
    ['0.5000', '-0.0123', '184.6604', '6.020e+12', '3.000e-07', 'nan']
    """
    if value is None:
        return ""
    if abs(value) < _ROUNDING:
        value = 0.0
    plus = "+" if sign and value > 0 else ""
    if math.isfinite(value) and value != 0 and not 10.0**-digits <= abs(value) < 10.0**6:
        return f"{plus}{value:.{digits - 1}e}"
    return f"{plus}{value:.{digits}f}"


def show_p(value: float | None) -> str:
    """Return a p-value.

    >>> [show_p(0.0312), show_p(3e-9), show_p(1.0)]
    ['0.031', '3e-09', '1.000']
    """
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.0e}"


def shorten(text: str) -> str:
    """Cut the hashes in a text to the length that they have in signatures.

    >>> shorten("sha256:0123456789abcdef0123")
    'sha256:0123456789ab'
    """
    return _HASH.sub(r"\1\2", text)

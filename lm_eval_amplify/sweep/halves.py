"""Documents in two halves: one that conditions are chosen by, and one that is reported."""

from __future__ import annotations

from typing import Literal, TypeAlias

Split: TypeAlias = Literal["half", "none"]
"""``none``: all documents are both chosen by and reported."""


def is_chosen_by(document: int, split: Split) -> bool:
    """Return whether a document, by its number in the task, is one that conditions are chosen by.

    Every other one: neighbours in a dataset are often alike, and a fact has the same number in every language.
    """
    return split == "none" or document % 2 == 0


def is_reported(document: int, split: Split) -> bool:
    """Return whether a document is one that is reported."""
    return split == "none" or document % 2 == 1

"""Requests of XWinograd, those of the harness's own ``xwinograd_*`` tasks: partial scoring.

The contexts are the sentence up to the gap with one of the options in it; what is scored is the same for both, the
rest of the sentence.
"""

from __future__ import annotations

from typing import Any

import datasets

GAP = "_"


def answer(doc: dict[str, Any]) -> int:
    """Return the index of the right option; an index in this place tells the harness that choices are contexts."""
    return {"1": 0, "2": 1}[doc["answer"]]


def beginnings(doc: dict[str, Any]) -> list[str]:
    """Return the sentence up to the gap with each option in it."""
    start = doc["sentence"].partition(GAP)[0]
    return [start + doc["option1"], start + doc["option2"]]


def ending(doc: dict[str, Any]) -> str:
    """Return the sentence from behind its first gap; empty where it ends there."""
    return str(doc["sentence"].partition(GAP)[2]).strip()


def with_ending(docs: datasets.Dataset) -> datasets.Dataset:
    """Return the documents that can be examples: the harness puts no delimiter behind one without an ending."""
    return docs.select([number for number, doc in enumerate(docs) if ending(doc)])

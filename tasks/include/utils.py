"""Prompts of Include: that of the harness's own ``include_base_44_*`` tasks, and the paper's."""

from __future__ import annotations

from typing import Any


def options(doc: dict[str, Any]) -> list[str]:
    """Return the four options: the column ``choices`` of include-lite-44, or ``option_a`` ... of include-base-44."""
    choices = doc.get("choices")
    return list(choices) if choices else [doc[f"option_{letter}"] for letter in "abcd"]


def question_and_options(doc: dict[str, Any]) -> str:
    """Return the harness's prompt; the space before ``D.`` is its own."""
    a, b, c, d = options(doc)
    return f"{doc['question'].strip()}\nA. {a}\nB. {b}\nC. {c}\n D. {d}\nAnswer:"


def paper_question_and_options(doc: dict[str, Any]) -> str:
    """Return the paper's prompt."""
    a, b, c, d = options(doc)
    return f"{doc['question'].strip()}\nA) {a}\nB) {b}\nC) {c}\nD) {d}\nAnswer:"

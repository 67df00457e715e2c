"""Prompts of XCOPA, request for request those of the harness's own ``xcopa_*`` tasks."""

from __future__ import annotations

from typing import Any

# What joins premise and choice: (the choice is the premise's cause, the choice is its effect).
CONNECTORS = {
    "est_Latn": ("sest", "seetõttu"),
    "hat_Latn": ("poukisa", "donk sa"),
    "ind_Latn": ("karena", "maka"),
    "ita_Latn": ("perché", "quindi"),
    "quy_Latn": ("imataq", "chaymi"),
    "swh_Latn": ("kwa sababu", "kwa hiyo"),
    "tam_Taml": ("காரணமாக", "எனவே"),
    "tha_Thai": ("เพราะ", "ดังนั้น"),
    "tur_Latn": ("çünkü", "bu yüzden"),
    "vie_Latn": ("bởi vì", "vì vậy"),
    "zho_Hans": ("因为", "所以"),
}


def premise_and_connector(doc: dict[str, Any]) -> str:
    """Return the premise without its full stop, a space, and the connector of its language."""
    cause, effect = CONNECTORS[doc["amplify_language"]]
    connector = cause if doc["question"] == "cause" else effect
    return f"{doc['premise'].strip()[:-1]} {connector}"


def choices(doc: dict[str, Any]) -> list[str]:
    """Return both choices, their first letter in lower case, as they follow a connector."""
    return [doc[name][0].lower() + doc[name][1:] for name in ("choice1", "choice2")]

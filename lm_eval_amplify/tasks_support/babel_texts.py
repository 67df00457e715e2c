"""babel's held-out sentences as documents: a perplexity task without a download."""

from __future__ import annotations

from itertools import islice
from typing import Any

import datasets

from lm_eval_amplify.babel.corpus import sentences

NUMBER = 100
"""Sentences of each language."""


def load_babel_texts(*, amplify_language: str, **_metadata: Any) -> dict[str, datasets.Dataset]:
    """Make the documents of one language; a task's ``custom_dataset``.

    Args:
        amplify_language: FLORES-200 code.
        **_metadata: The model's arguments and the task's metadata, which the harness hands over as well.

    Raises:
        LanguageError: babel does not have the language.
    """
    rows = [
        {"id": number, "sentence": sentence, "amplify_language": amplify_language}
        for number, sentence in enumerate(islice(sentences(amplify_language, "held_out"), NUMBER))
    ]
    return {"test": datasets.Dataset.from_list(rows)}

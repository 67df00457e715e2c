"""babel's corpus: endless sentences of each language, apart for training and for held-out text, and the facts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from lm_eval_amplify.babel.grammar import FactText, Grammar, read_grammar
from lm_eval_amplify.errors import DataError, LanguageError, did_you_mean
from lm_eval_amplify.languages import PAPER_LANGUAGES

Split: TypeAlias = Literal["train", "held_out"]

LANGUAGES = PAPER_LANGUAGES
"""The languages of the corpus, as FLORES-200 codes."""

HELD_OUT_SHARE = 0.05
"""Of the different sentences."""

FACT_SHARE = 0.08
"""Of the sentences of documents."""

_FOLDER = Path(__file__).with_name("languages")


@cache
def grammar(language: str) -> Grammar:
    """Return what a language's sentences are drawn from.

    Raises:
        LanguageError: babel does not have the language.
    """
    if language not in LANGUAGES:
        raise LanguageError(
            f"babel has no {language}{did_you_mean(language, LANGUAGES)}: it has {', '.join(LANGUAGES)}"
        )
    return read_grammar(_FOLDER / f"{language}.yaml")


def sentences(language: str, split: Split, seed: int = 0) -> Iterator[str]:
    """Yield sentences of a language without end, the same ones for the same seed.

    A sentence belongs to one split whatever the seed, by a hash of its text: what is held out is never trained on.
    Templates are drawn with equal probability.

    Raises:
        LanguageError: babel does not have the language.
        DataError: There is no such split.
    """
    if split not in get_args(Split):
        raise DataError(
            f"split={split}{did_you_mean(str(split), get_args(Split))}: expected {', '.join(get_args(Split))}"
        )
    source, rng = grammar(language), random.Random(f"{language} {split} {seed}")  # noqa: S311  # not for secrets
    while True:
        sentence = source.draw(rng)
        if is_held_out(sentence) == (split == "held_out"):
            yield sentence


def is_held_out(sentence: str) -> bool:
    """Return whether a sentence is kept from training."""
    digest = hashlib.sha256(sentence.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def documents(language: str, split: Split, *, fact_share: float = FACT_SHARE, seed: int = 0) -> Iterator[str]:
    """Yield documents of a language without end: one to four sentences each, joined as the script joins them.

    Args:
        language: FLORES-200 code.
        split: Of the sentences; the facts are the same in both.
        fact_share: Probability that a sentence is a fact instead.
        seed: Other seeds, other documents.
    """
    rng = random.Random(f"{language} {split} {seed} documents")  # noqa: S311
    drawn = sentences(language, split, seed)
    facts = list(grammar(language).facts.values())
    joint = "" if language in ("jpn_Jpan", "zho_Hans") else " "
    while True:
        number = rng.randint(1, 4)
        yield joint.join(
            rng.choice(facts).sentence() if rng.random() < fact_share else next(drawn) for _ in range(number)
        )


def fact_texts(language: str) -> Mapping[str, FactText]:
    """Return the facts of a language by key, ``relation/subject``, in the same order for every language."""
    return grammar(language).facts

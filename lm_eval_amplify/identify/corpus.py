"""Texts by language: what a corpus is, and how a user names one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from lm_eval_amplify.errors import DataError, did_you_mean
from lm_eval_amplify.identify.embedded import EmbeddedCorpus
from lm_eval_amplify.identify.folders import JsonLinesFolder, TextFolder
from lm_eval_amplify.identify.hub_corpora import Flores, HubDataset

USUAL_TOKENS = 100_000
"""The budget of a language where the user gives none and the corpus has no ``usual_tokens``."""


class Corpus(Protocol):
    """Documents in several languages, read as a stream, in the same order each time."""

    @property
    def name(self) -> str:
        """What a user names the corpus by; recorded in the neuron file."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it has, as FLORES-200 codes, sorted.

        Raises:
            DataError: They cannot be listed.
        """

    def check(self, language: str) -> None:
        """Check, without reading all of it, that there are texts of a language.

        Raises:
            DataError: There are none; says what was looked for.
        """

    def documents(self, language: str) -> Iterator[str]:
        """Yield the documents of a language, none of them empty.

        Raises:
            DataError: There are none, or they cannot be read or decoded; names the place.
        """


_KINDS: Mapping[str, Callable[[str], Corpus]] = {
    "text": TextFolder,
    "jsonl": JsonLinesFolder,
    "flores": Flores,
    "hub": HubDataset,
}
_FORMS = "text:DIR with DIR/<language>.txt, jsonl:DIR with DIR/<language>.jsonl, flores[:MIRROR], hub:ORG/NAME or babel"


def open_corpus(address: str) -> Corpus:
    """Return the corpus that an address names: ``text:DIR``, or ``babel`` for the embedded one.

    Raises:
        DataError: The address has another form, or there is no such corpus.
    """
    if address == EmbeddedCorpus.name:
        return EmbeddedCorpus()
    kind, colon, rest = address.partition(":")
    if kind not in _KINDS or bool(colon) != bool(rest) or (not rest and kind != "flores"):
        raise DataError(f"corpus {address!r}{did_you_mean(kind, [*_KINDS, EmbeddedCorpus.name])}: expected {_FORMS}")
    return _KINDS[kind](rest)


def usual_tokens(corpus: Corpus) -> int:
    """Return the budget of a language for a corpus where the user gives none."""
    return int(getattr(corpus, "usual_tokens", USUAL_TOKENS))

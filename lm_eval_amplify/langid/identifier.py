"""What a language identifier is."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lm_eval_amplify.errors import LanguageError
from lm_eval_amplify.languages import canonical_language


class Guess(NamedTuple):
    """The language that an identifier takes a text for."""

    language: str
    """FLORES-200 code; the identifier's own label where the table of languages has none for it."""
    probability: float
    """The identifier's own, from 0 to 1."""


class Identifier(Protocol):
    """Takes a text for one of the languages that it knows."""

    @property
    def name(self) -> str:
        """Which one it is, with its version or hash, as results record it."""

    @property
    def languages(self) -> frozenset[str]:
        """The languages that it knows, as :attr:`Guess.language` gives them."""

    def identify(self, text: str) -> Guess:
        """Return its best guess, of any text; see :func:`~lm_eval_amplify.langid.text.why_no_language` first."""


def code_of_label(label: str, own: dict[str, str]) -> str:
    """Return the FLORES-200 code of an identifier's label, or the label itself where it has none.

    Args:
        label: An ISO 639 code, with or without a script (``id``, ``ind_Latn``).
        own: Where the identifier uses a label otherwise than the table of languages.
    """
    try:
        return own.get(label) or canonical_language(label)
    except LanguageError:
        return label


def one_line(text: str) -> str:
    """Return the text with every run of white space as one space, without any at its ends."""
    return " ".join(text.split())

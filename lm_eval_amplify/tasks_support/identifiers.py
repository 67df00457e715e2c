"""The language identifiers of a task: the one that its rates are by, and a second one to agree with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lm_eval_amplify.errors import LanguageIDError
from lm_eval_amplify.langid import Guess, Identifier, load_identifier, require_languages, why_no_language
from lm_eval_amplify.langid.load import BAYES, FASTTEXT, NONE

OTHER = "other"
"""What a text counts as that is in no language."""

SURE = 0.5
"""A probability from here on is taken at its word; below, the second identifier must say the same.

Of gibberish and of words of many languages in a heap lid.176 is less sure, of Haitian Creole, Quechua and Swahili too.
"""


class Identifiers(NamedTuple):
    """Those of a task; None where the user wants none."""

    first: Identifier | None
    second: Identifier | None

    @property
    def names(self) -> dict[str, str | None]:
        """Which they are, for the results."""
        return {name: each.name if each else None for name, each in zip(("lid", "second_lid"), self, strict=True)}

    def judge(self, text: str) -> Judged:
        """Return what both say of a text, and what it counts as.

        As the first one's language; as ``other`` where the text is too short, repeats itself or has no words, and where
        the first is not sure and the second contradicts it.
        """
        why = why_no_language(text)
        first, second = (each.identify(text) if each and why != "empty" else None for each in self)
        if why is None and first and second and first.probability < SURE and second.language != first.language:
            why = "uncertain"
        return Judged(OTHER if why or first is None else first.language, why, first, second)


class Judged(NamedTuple):
    """A text's language."""

    counts_as: str
    """FLORES-200 code, another label of the identifier, or ``other``."""
    why_other: str | None
    """Why the text is in no language, whatever the identifiers say."""
    first: Guess | None
    second: Guess | None

    @property
    def agree(self) -> bool | None:
        """Whether both identifiers say the same; None of a text that cannot be identified, and without a second one."""
        if self.why_other not in (None, "uncertain") or self.first is None or self.second is None:
            return None
        return self.first.language == self.second.language

    @property
    def logged(self) -> dict[str, Any]:
        """For the samples."""
        return {
            "counts_as": self.counts_as,
            "why_other": self.why_other,
            "language": self.first and self.first.language,
            "probability": self.first and self.first.probability,
            "second_language": self.second and self.second.language,
            "second_probability": self.second and self.second.probability,
        }


def task_identifiers(
    lid: Any = None, second_lid: Any = None, *, languages: Iterable[str] = (), is_optional: bool = False
) -> Identifiers:
    """Return the identifiers that a task's metadata names.

    Args:
        lid: Metadata ``lid``: see :func:`~lm_eval_amplify.langid.load_identifier`; by default ``lid.176``.
        second_lid: Metadata ``second_lid``: likewise, by default ``py3langid`` (``lid.176`` where that is the first);
            ``none`` for none.
        languages: What the first one must know.
        is_optional: Whether the first may be ``none`` as well.

    Raises:
        LanguageIDError: There is no such identifier, it cannot be loaded, or the first does not know a language.
    """
    name = FASTTEXT if lid is None else str(lid)
    second_name = (FASTTEXT if name == BAYES else BAYES) if second_lid is None else str(second_lid)
    if name == NONE and is_optional:
        return Identifiers(None, None)
    otherwise = f', or do without: --metadata \'{{"lid": "{NONE}"}}\'' if is_optional else ""
    try:
        first = load_identifier(name)
        second = None if second_name == NONE else load_identifier(second_name)
    except LanguageIDError as error:
        raise LanguageIDError(f"{error}{otherwise}") from error
    require_languages(first, languages, name, otherwise)
    return Identifiers(first, second)

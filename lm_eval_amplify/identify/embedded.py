"""The corpus that ships with the package: babel's, in its 18 languages."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from lm_eval_amplify.babel.corpus import LANGUAGES, documents
from lm_eval_amplify.errors import DataError, did_you_mean

DOCUMENTS = 20_000
"""Of each language; about 800,000 tokens of babel's."""

_SEED = 1_000_000
"""None of babel's training."""


class EmbeddedCorpus:
    """``babel``: documents drawn from babel's grammars, of those sentences that it was trained on."""

    name = "babel"
    languages = tuple(sorted(LANGUAGES))

    def check(self, language: str) -> None:
        """Check that the corpus has a language.

        Raises:
            DataError: It has not.
        """
        if language not in self.languages:
            near = did_you_mean(language, self.languages)
            raise DataError(f"corpus babel has no {language}{near}: there are {', '.join(self.languages)}")

    def documents(self, language: str) -> Iterator[str]:
        """Yield the documents of a language.

        Raises:
            DataError: The corpus does not have it.
        """
        self.check(language)
        yield from islice(documents(language, "train", seed=_SEED), DOCUMENTS)

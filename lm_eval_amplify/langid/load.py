"""From what a user names to an identifier, and whether it knows the languages that a task needs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lm_eval_amplify.errors import LanguageIDError, did_you_mean
from lm_eval_amplify.hub_files import SCHEME, download_file
from lm_eval_amplify.langid.bayes import BayesIdentifier
from lm_eval_amplify.langid.fasttext import FastTextIdentifier
from lm_eval_amplify.langid.identifier import Guess, Identifier
from lm_eval_amplify.langid.text import why_no_language

FASTTEXT = "lid.176"
BAYES = "py3langid"
NONE = "none"


@cache
def load_identifier(name: str) -> Identifier:
    """Return an identifier, loaded once.

    Args:
        name: ``lid.176``, ``py3langid``, the path of a fastText model, or ``hf://org/repo/file[@revision]``, such as
            ``hf://cis-lmu/glotlid/model.bin``.

    Raises:
        LanguageIDError: There is no such identifier, or it cannot be loaded.
    """
    if name == FASTTEXT:
        return FastTextIdentifier()
    if name == BAYES:
        return BayesIdentifier()
    if name.startswith(SCHEME):
        return FastTextIdentifier(download_file(name, LanguageIDError), name)
    if Path(name).is_file():
        return FastTextIdentifier(Path(name), name)
    raise LanguageIDError(
        f"no language identifier {name!r}{did_you_mean(name, (FASTTEXT, BAYES))}: give {FASTTEXT}, {BAYES}, the path "
        "of a fastText model or hf://org/repo/file[@revision]"
    )


def identify_language(text: str, lid: str = FASTTEXT) -> Guess | None:
    """Return the language of a text, or None where it can be none; see :func:`why_no_language`.

    Args:
        text: A sentence or more.
        lid: See :func:`load_identifier`.

    Raises:
        LanguageIDError: The identifier cannot be loaded.
    """
    return None if why_no_language(text) is not None else load_identifier(lid).identify(text)


def require_languages(identifier: Identifier, languages: Iterable[str], name: str, otherwise: str = "") -> None:
    """Check that an identifier knows these languages.

    Args:
        identifier: The identifier.
        languages: FLORES-200 codes.
        name: As the user gave it.
        otherwise: What else to do, for the message.

    Raises:
        LanguageIDError: It does not know one.
    """
    unknown = [language for language in dict.fromkeys(languages) if language not in identifier.languages]
    if unknown:
        raise LanguageIDError(
            f"the language identifier {name} does not know {', '.join(unknown)}: name one that does with "
            f'--metadata \'{{"lid": "hf://cis-lmu/glotlid/model.bin"}}\'{otherwise}'
        )

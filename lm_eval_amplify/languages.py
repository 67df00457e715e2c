"""The table of languages: FLORES-200 codes, and the other names by which people call them.

``languages.tsv`` holds the 204 languages of FLORES-200 with ISO 639-1 code, English name, further aliases
(macrolanguage codes, bibliographic codes, the codes of FLORES+) and the languages' own names, most as in Unicode CLDR.
Nothing is limited to the table: any code of the form ``abc_Latn`` (ISO 639-3, ISO 15924) is a language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lm_eval_amplify.errors import LanguageError, did_you_mean

_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")

PAPER_LANGUAGES = (
    "eng_Latn", "nld_Latn", "ind_Latn", "zsm_Latn", "vie_Latn", "jpn_Jpan", "zho_Hans", "fra_Latn", "por_Latn",
    "rus_Cyrl", "est_Latn", "hat_Latn", "ita_Latn", "quy_Latn", "swh_Latn", "tam_Taml", "tha_Thai", "tur_Latn",
)  # fmt: skip
"""The 18 languages of Rahmanisa et al. 2025 (arXiv 2507.22581), in the paper's order of families."""


class Language(NamedTuple):
    """One row of the table."""

    code: str
    """FLORES-200 code: ISO 639-3, underscore, ISO 15924 script."""
    iso639_1: str
    """Two-letter code, or empty."""
    name: str
    """English name."""
    aliases: tuple[str, ...]
    """Other codes and names, as people write them."""
    endonym: str
    """The language's name in itself; empty where it is as in English, or not in the table."""


@cache
def language_table() -> Mapping[str, Language]:
    """Return the table by FLORES-200 code."""
    text = Path(__file__).with_name("languages.tsv").read_text(encoding="utf-8")
    table = {}
    for line in text.splitlines()[1:]:
        code, iso639_1, name, aliases, endonym = line.split("\t")
        table[code] = Language(code, iso639_1, name, tuple(filter(None, aliases.split(","))), endonym)
    return table


@cache
def _code_by_name() -> Mapping[str, str]:
    """Every name to its code; where several scripts share a name, the table's first row has it."""
    names: dict[str, str] = {}
    for code, iso639_1, name, aliases, _ in language_table().values():
        for alias in (code, iso639_1, code.partition("_")[0], name, *aliases):
            if alias:
                names.setdefault(alias, code)
    return names


@cache
def _code_by_lower_case_name() -> Mapping[str, str]:
    return {name.lower(): code for name, code in _code_by_name().items()}


def canonical_language(name: str) -> str:
    """Return the FLORES-200 code of a language.

    Args:
        name: A FLORES-200 code (``ind_Latn``), an ISO 639-1 or 639-3 code (``id``, ``ind``), an English name
            (``Indonesian``), or any code of the form ``abc_Latn``, which is returned as it is.

    Raises:
        LanguageError: The name is none of these; the message suggests near ones.
    """
    code = _code_by_lower_case_name().get(name.strip().lower())
    if code is not None:
        return code
    written = name[:4].lower() + name[4:].capitalize()
    if _CODE.fullmatch(written):
        return written
    raise LanguageError(
        f"unknown language {name!r}{did_you_mean(name, _code_by_name())}: "
        "give a FLORES-200 code such as ind_Latn, an ISO 639 code or an English name"
    )


def language_name(code: str) -> str:
    """Return the English name of a FLORES-200 code, or the code itself where the table has no row for it."""
    row = language_table().get(code)
    return row.name if row else code


def endonym(code: str) -> str:
    """Return a language's name in itself, or nothing where it is as in English, or not known."""
    row = language_table().get(code)
    return row.endonym if row else ""

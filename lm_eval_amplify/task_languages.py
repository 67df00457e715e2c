"""Which language a harness task is in, read from its name: our tasks and the harness's multilingual families.

Task metadata cannot serve: the harness merges the model's arguments over it, and a model never sees it. A translation
task counts as its target's language (what the model has to write), a task with two languages for the passage and
the question as the passage's. A task that is in the table as English-only is not: one that names no language has none.
"""

from __future__ import annotations

import re
from functools import cache

from lm_eval_amplify.errors import LanguageError
from lm_eval_amplify.languages import canonical_language

OWN_LANGUAGE = "task"
"""The value of a model's ``language`` under which each request is amplified in the language of its own task."""

_FLORES = r"(?P<language>[a-z]{3}_[A-Z][a-z]{3})"
_TWO = r"(?P<language>[a-z]{2})"
_TWO_OR_THREE = r"(?P<language>[a-z]{2,3})"
_END = r"(?:_.*)?"

_FAMILIES = [
    re.compile(pattern)
    for pattern in (
        rf"amplify_\w+?_{_FLORES}{_END}",
        rf"(?:xcopa|xwinograd|xstorycloze|xnli|xquad|paws|tydiqa_goldp)_{_TWO}{_END}",
        rf"(?:global_mmlu(?:_full)?|mmlu_prox(?:_lite)?|m_mmlu|mmmlu)_{_TWO_OR_THREE}{_END}",
        rf"(?:arc|hellaswag)_{_TWO}(?:_challenge|_easy)?",
        rf"truthfulqa_{_TWO}_mc[12]",
        rf"mgsm_(?:direct|native_cot|en_cot)_{_TWO}{_END}",
        rf"lambada_openai_mt_(?:stablelm_)?{_TWO}",
        rf"mlqa_{_TWO}_[a-z]{{2}}",
        rf"(?:arc_challenge_mt|mela)_{_TWO}",
        rf"copal_{_TWO}{_END}",
        rf"belebele_(?P<language>[a-z]{{3}}(?:_[A-Z][a-z]{{3}})?){_END}",
        rf"(?:amplify_\w+?|flores|ntrex)_[a-z]{{3}}_[A-Z][a-z]{{3}}-{_FLORES}{_END}",
        rf"\w+_bench_flores_[a-z]{{2}}-{_TWO}",
        r"global_piqa_\w+?_(?:cloze|generation)_(?P<language>[a-z]{3}_[a-z]{4})(?:_.*)?",
        rf"multiblimp_{_TWO_OR_THREE}",
        rf"afri(?:mmlu|xnli|mgsm|diacritics)(?:_(?!translate)[a-z]+){{0,2}}?_{_TWO_OR_THREE}(?:_prompt_\d)?",
        r"include_(?:base|lite)_44_(?P<name>[a-z_]+)",
    )
]

_ONE_LANGUAGE = {
    "turkishmmlu": "tur_Latn",
    "cmmlu": "zho_Hans",
    "ceval": "zho_Hans",
    "tmlu": "zho_Hant",
    "tmmluplus": "zho_Hant",
    "kmmlu": "kor_Hang",
    "kobest": "kor_Hang",
    "haerae": "kor_Hang",
    "arabicmmlu": "arb_Arab",
    "greekmmlu": "ell_Grek",
}


@cache
def language_of_task(task: str) -> str | None:
    """Return the FLORES-200 code of the language that a task's name says, or None where it says none.

    >>> language_of_task("xcopa_id"), language_of_task("include_base_44_north_macedonian_stem")
    ('ind_Latn', 'mkd_Cyrl')
    >>> language_of_task("hellaswag") is None
    True
    """
    for family in _FAMILIES:
        match = family.fullmatch(task)
        if match:
            found = match.groupdict()
            return _code(found["language"]) if "language" in found else _leading_name(found["name"])
    for family_name, code in _ONE_LANGUAGE.items():
        if re.match(rf"{family_name}(?:[_-]|$)", task):
            return code
    return None


def _code(written: str) -> str | None:
    try:
        return canonical_language(written)
    except LanguageError:
        return None


def _leading_name(written: str) -> str | None:
    """``north_macedonian_stem`` to the code of its longest leading part that names a language."""
    words = written.split("_")
    parts = (" ".join(words[:count]) for count in range(len(words), 0, -1))
    return next((code for code in map(_code, parts) if code), None)

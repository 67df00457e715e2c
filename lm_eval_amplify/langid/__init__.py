"""Which language a text is in: identifiers behind one small interface, and whether a text can be identified at all."""

from lm_eval_amplify.langid.identifier import Guess, Identifier
from lm_eval_amplify.langid.load import identify_language, load_identifier, require_languages
from lm_eval_amplify.langid.text import distinct_2, repetition, why_no_language

__all__ = [
    "Guess",
    "Identifier",
    "distinct_2",
    "identify_language",
    "load_identifier",
    "repetition",
    "require_languages",
    "why_no_language",
]

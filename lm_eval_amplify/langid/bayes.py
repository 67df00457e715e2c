"""The identifier for agreement: py3langid, naive Bayes over byte n-grams, of other training data than fastText's.

Lui and Baldwin 2012, "langid.py: An Off-the-shelf Language Identification Tool" (ACL 2012 demonstrations).
"""

from __future__ import annotations

from importlib.metadata import version

from lm_eval_amplify.errors import LanguageIDError
from lm_eval_amplify.langid.identifier import Guess, code_of_label, one_line

_MODEL = "data/model.npz.xz"


class BayesIdentifier:
    """py3langid with the model in its wheel.

    Raises:
        LanguageIDError: It is not installed.
    """

    def __init__(self) -> None:
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise LanguageIDError(
                "lid=py3langid needs the package py3langid: pip install 'lm-eval-amplify[langid]'"
            ) from error
        self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._codes = {label: code_of_label(label, {}) for label in self._model.labels}

    @property
    def name(self) -> str:
        """The version of py3langid."""
        return f"py3langid {version('py3langid')}"

    @property
    def languages(self) -> frozenset[str]:
        """FLORES-200 codes, and labels that have none."""
        return frozenset(self._codes.values())

    def identify(self, text: str) -> Guess:
        """Return the most probable label."""
        label, probability = self._model.classify(one_line(text))
        return Guess(self._codes[label], float(probability))

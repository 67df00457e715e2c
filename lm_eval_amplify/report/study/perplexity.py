"""What amplification costs in perplexity: whose neurons, and the language of the texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.report.study.data import Shown, StudyData
from lm_eval_amplify.results.files import ResultsFile

METRIC = "bits_per_byte"


class PerplexityMatrix(NamedTuple):
    """The change of bits per byte on one task's texts."""

    task: str
    """As the study names it."""
    amplified: Sequence[str]
    """Whose neurons, ``[rows]``."""
    texts: Sequence[str]
    """Languages of the texts, ``[columns]``."""
    conditions: Sequence[Shown]
    """``[rows]``."""
    unamplified: NDArray[np.float64]
    """Bits per byte, ``[columns]``; NaN where not measured."""
    values: NDArray[np.float64]
    """Bits per byte amplified, ``[rows, columns]``."""
    is_limit: bool
    """Whether conditions were chosen by what they do to these very texts."""

    @property
    def change(self) -> NDArray[np.float64]:
        """Amplified minus unamplified, ``[rows, columns]``; above 0: the texts are less likely."""
        return self.values - self.unamplified


def perplexity_matrices(study: StudyData) -> list[PerplexityMatrix]:
    """Return a matrix for each task that measures bits per byte amplified and unamplified."""
    found = []
    for task in study.record["tasks"]:
        leaves = {leaf: language for leaf, language in study.leaves(task).items() if language}
        before = study.unamplified(task)
        if before is None or not any(not math.isnan(_bits(before, leaf)) for leaf in leaves):
            continue
        rows = [(language, unit) for language in study.shown if (unit := study.unit(task, language))]
        if rows:
            unamplified = np.array([_bits(before, leaf) for leaf in leaves])
            values = np.array([[_bits(file, leaf) for leaf in leaves] for _, (_, file) in rows])
            languages = [language for language, _ in rows]
            shown = [study.shown[language] for language in languages]
            is_limit = task == study.choosing.get("limit_task")
            texts = list(leaves.values())
            found.append(PerplexityMatrix(task, languages, texts, shown, unamplified, values, is_limit))
    return found


def _bits(file: ResultsFile, leaf: str) -> float:
    value = (file.content["results"].get(leaf) or {}).get(f"{METRIC},none")
    return float(value) if isinstance(value, (int, float)) else math.nan

"""Perplexity of texts as the harness has it, with standard errors, which the harness has none for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.tasks_support.bootstrap import ratio_stderr
from lm_eval_amplify.tasks_support.task import AmplifyTask

_Array: TypeAlias = NDArray[np.float64]


def _bits(ratios: _Array) -> _Array:
    return -ratios / math.log(2)


def _perplexity(ratios: _Array) -> _Array:
    with np.errstate(over="ignore"):  # infinite, where the harness's own aggregation stops the run
        return np.exp(-ratios)


# Of the sum of log-likelihoods over the sum of bytes or words.
_STATISTICS = {"bits_per_byte": _bits, "byte_perplexity": _perplexity, "word_perplexity": _perplexity}


class PerplexityTask(AmplifyTask):
    """A task of whole texts: ``loglikelihood_rolling``, with a standard error by bootstrap over documents."""

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return the harness's metrics: pairs of log-likelihood and weight; each once more for its standard error."""
        metrics = super().process_results(doc, results)
        # After its metric: the harness writes N/A under the key of the standard error when it gets to that.
        return metrics | {f"{name}_stderr": pair for name, pair in metrics.items()}

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], Any]]:
        """Return each metric's aggregation over documents."""
        aggregations: dict[str, Callable[[Sequence[Any]], Any]] = super().aggregation()
        own = {name: statistic for name, statistic in _STATISTICS.items() if name in aggregations}
        return (
            aggregations
            | {name: partial(_of_all, statistic=statistic) for name, statistic in own.items()}
            | {f"{name}_stderr": partial(ratio_stderr, statistic=statistic) for name, statistic in own.items()}
        )


def _of_all(pairs: Sequence[tuple[float, float]], statistic: Callable[[_Array], _Array]) -> float:
    scores, weights = zip(*pairs, strict=True)
    return float(statistic(np.asarray(math.fsum(scores) / math.fsum(weights))))

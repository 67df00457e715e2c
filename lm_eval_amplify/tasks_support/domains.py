"""Multiple choice whose accuracy is also given by domain, as exams have domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from lm_eval_amplify.tasks_support.nan_means import nan_mean, nan_mean_stderr
from lm_eval_amplify.tasks_support.task import AmplifyTask


class DomainTask(AmplifyTask):
    """A multiple-choice task whose documents have a column ``domain``.

    Beside ``acc`` there is an ``acc_<domain>`` for each domain of the task's documents, with its standard error.
    Every document has all of them, NaN in other domains than its own, because the processes of a run must return
    the same metrics for every document; means leave NaN out.
    """

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """Metric names of the domains of all documents, sorted."""
        return tuple(sorted({domain_metric(domain) for domain in self.eval_docs["domain"]}))

    def process_results(self, doc: dict[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        """Return ``acc``, and the same once more under the document's domain."""
        metrics = super().process_results(doc, results)
        if "acc" not in metrics:  # --predict_only
            return metrics
        own = domain_metric(doc["domain"])
        by_domain = {domain: metrics["acc"] if domain == own else math.nan for domain in self.domains}
        # After its metric: the harness writes N/A under the key of the standard error when it gets to that.
        return metrics | by_domain | {f"{domain}_stderr": value for domain, value in by_domain.items()}

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], Any]]:
        """Return each metric's aggregation over documents."""
        errors = {f"{domain}_stderr": nan_mean_stderr for domain in self.domains}
        aggregations: dict[str, Callable[[Sequence[Any]], Any]] = super().aggregation()
        return aggregations | dict.fromkeys(self.domains, nan_mean) | errors

    def higher_is_better(self) -> dict[str, bool]:
        """Return that a higher accuracy is better."""
        directions: dict[str, bool] = super().higher_is_better()
        return directions | dict.fromkeys(self.domains, True)


def domain_metric(domain: str) -> str:
    """Return the name of a domain's metric, written as the harness writes domains in its tasks' names.

    >>> domain_metric("Arts & Humanities")
    'acc_arts_humanities'
    """
    return "acc_" + domain.strip().lower().replace(" & ", "_").replace(" ", "_")

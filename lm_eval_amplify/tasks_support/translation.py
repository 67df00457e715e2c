"""The harness task of translation: corpus scores of what was written, and which language it is in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from lm_eval_amplify.langid.identifier import one_line
from lm_eval_amplify.tasks_support.bootstrap import bootstrap_stderr
from lm_eval_amplify.tasks_support.corpus_scores import CorpusScore, corpus_scores
from lm_eval_amplify.tasks_support.identifiers import Identifiers, task_identifiers
from lm_eval_amplify.tasks_support.nan_means import nan_mean
from lm_eval_amplify.tasks_support.task import AmplifyTask
from lm_eval_amplify.tasks_support.two_sided import require_stop_token

_RATES = {"target_rate": True, "source_rate": False, "no_language_rate": False, "lid_agreement": True}
"""Whether more of it is better."""


class TranslationTask(AmplifyTask):
    """A task whose documents :func:`~lm_eval_amplify.tasks_support.translation_data.load_translations` makes.

    It runs on any model of the harness, amplified or not. What was written is compared without white space at its ends,
    every run of white space as one space.
    """

    @cached_property
    def scores(self) -> dict[str, CorpusScore]:
        """The corpus scores by name; see :func:`~lm_eval_amplify.tasks_support.corpus_scores.corpus_scores`."""
        return corpus_scores(self.eval_docs[0]["target_language"])

    @cached_property
    def identifiers(self) -> Identifiers:
        """The language identifiers that the metadata names."""
        metadata = self.config.metadata or {}
        return task_identifiers(metadata.get("lid"), metadata.get("second_lid"), is_optional=True)

    def check_model(self, lm: Any) -> None:
        """Check that a model can run this task; called before anything is generated.

        Raises:
            ModelError: It has no stop token.
        """
        require_stop_token(lm, task=self.task_name)

    def process_results(self, doc: dict[str, Any], results: Sequence[str]) -> dict[str, Any]:
        """Return a document's metrics; the document, which is logged, gets the text with its languages."""
        text = one_line(results[0])
        judged = self.identifiers.judge(text)
        doc["written"] = {"text": text, **judged.logged}
        if "bypass" in self._metric_fn_list:  # --predict_only
            return {}
        rates = dict.fromkeys(_RATES, math.nan)
        if self.identifiers.first is not None:
            rates["target_rate"] = float(judged.counts_as == doc["target_language"])
            rates["source_rate"] = float(judged.counts_as == doc["source_language"])
        rates["no_language_rate"] = float(judged.why_other is not None)
        rates["lid_agreement"] = math.nan if judged.agree is None else float(judged.agree)
        pair = (text, doc["reference"])
        # Standard errors last: the harness writes N/A under their keys when it gets to the metrics themselves.
        return (
            dict.fromkeys(self.scores, pair)
            | rates
            | {f"{name}_stderr": pair for name in self.scores}
            | {"target_rate_stderr": rates["target_rate"]}
        )

    def aggregation(self) -> dict[str, Callable[[Sequence[Any]], Any]]:
        """Return each metric's aggregation over documents."""
        return (
            {name: score.score for name, score in self.scores.items()}
            | {f"{name}_stderr": score.standard_error for name, score in self.scores.items()}
            | dict.fromkeys(_RATES, nan_mean)
            | {"target_rate_stderr": bootstrap_stderr}
        )

    def higher_is_better(self) -> dict[str, bool]:
        """Return whether more of a metric is better."""
        return dict.fromkeys(self.scores, True) | _RATES

    def dump_config(self) -> dict[str, Any]:
        """Return the configuration as results have it, with sacrebleu's signatures and the identifiers' versions."""
        config: dict[str, Any] = super().dump_config()
        signatures = {name: score.signature for name, score in self.scores.items()}
        return config | {"sacrebleu": signatures, "language_identification": self.identifiers.names}

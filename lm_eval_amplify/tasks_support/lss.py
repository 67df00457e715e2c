"""The harness task of the Language Steering Shift: both sides of every fact in one run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from lm_eval.api.instance import Instance

from lm_eval_amplify.models.requests import LANGUAGE_COLUMN
from lm_eval_amplify.tasks_support.bootstrap import bootstrap_stderr
from lm_eval_amplify.tasks_support.lss_metrics import metrics_of, requests_of, shifts_of
from lm_eval_amplify.tasks_support.nan_means import nan_mean
from lm_eval_amplify.tasks_support.task import AmplifyTask
from lm_eval_amplify.tasks_support.two_sided import require_both_sides

AMPLIFIED = "loglikelihood_amplified"
UNAMPLIFIED = "loglikelihood_unamplified"

# Below the harness's logger, whose level and format it shares.
_logger = logging.getLogger("lm_eval.amplify_lss")


class LSSTask(AmplifyTask):
    """A task whose documents :func:`~lm_eval_amplify.tasks_support.fact_data.load_facts` or its like makes.

    A document is one fact. Its requests are those of
    :func:`~lm_eval_amplify.tasks_support.lss_metrics.requests_of`, an amplified one first. Metrics per
    document, NaN where there is no value: ``lss_<t>`` and ``shift_<t>`` for each target language t, ``lss``
    and ``shift``, their means over t, with standard errors by bootstrap, and ``skipped``, the number of
    targets without a value, which is summed up. Means leave NaN out.
    """

    is_two_sided: ClassVar[bool] = True

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The target languages, as FLORES-200 codes."""
        return tuple(self.eval_docs[0]["targets"])

    def check_model(self, lm: Any) -> None:
        """Check that a model can run this task; called before anything is scored.

        Raises:
            ModelError: It cannot be amplified.
            LanguageError: Its neuron file lacks a target language.
        """
        require_both_sides(lm, task=self.task_name, request_types=(AMPLIFIED, UNAMPLIFIED), targets=self.targets)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Return the requests of a document; an amplified one carries its target language."""
        # As in the harness's own tasks, an answer that opens the assistant's turn has no joint before it.
        in_chat = kwargs.pop("apply_chat_template", False)
        kwargs.pop("chat_template", None)
        return [
            Instance(
                request_type=UNAMPLIFIED if scored.target is None else AMPLIFIED,
                doc=doc if scored.target is None else doc | {LANGUAGE_COLUMN: scored.target},
                arguments=(ctx, scored.continuation.lstrip() if in_chat else scored.continuation),
                idx=position,
                **kwargs,
            )
            for position, scored in enumerate(requests_of(doc))
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        """Return a document's metrics.

        The document, which the harness makes anew for this call and then logs, gets both sides'
        log-likelihoods by name: the logged ``arguments`` and ``resps`` do not say which side or language they
        belong to.
        """
        values = [float(value) for value, _ in results]
        doc["loglikelihoods"] = _by_side(doc, values)
        if "bypass" in self._metric_fn_list:  # --predict_only
            return {}
        shifts = shifts_of(doc, values)
        if not all(map(math.isfinite, values)):
            _logger.warning(
                "%s: a log-likelihood is not finite, the fact counts as skipped: %s",
                self.task_name,
                doc["prompt"],
            )
            shifts = {target: shift if math.isfinite(shift) else math.nan for target, shift in shifts.items()}
        return metrics_of(shifts)

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], Any]]:
        """Return each metric's aggregation over documents."""
        errors = {"lss_stderr": bootstrap_stderr, "shift_stderr": bootstrap_stderr}
        return dict.fromkeys(self._means(), nan_mean) | errors | {"skipped": sum}

    def higher_is_better(self) -> dict[str, bool]:
        """Return that more steering is better; the unamplified model is at shift 0."""
        return dict.fromkeys(self._means(), True) | {"skipped": False}

    def _means(self) -> list[str]:
        return ["lss", "shift", *(f"{name}_{target}" for name in ("lss", "shift") for target in self.targets)]


def _by_side(doc: Mapping[str, Any], values: Sequence[float]) -> dict[str, Any]:
    """Log-likelihoods by the language of the object: unamplified, and amplified by target language."""
    unamplified: dict[str, float] = {}
    amplified: dict[str, dict[str, float]] = {}
    for scored, value in zip(requests_of(doc), values, strict=True):
        side = unamplified if scored.target is None else amplified.setdefault(scored.target, {})
        side[scored.object_language] = value
    return {"unamplified": unamplified, "amplified": amplified}

"""The harness task of LSS language ID: what the amplified and the unamplified model write, in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any, ClassVar

from lm_eval.api.instance import Instance

from lm_eval_amplify.models.requests import LANGUAGE_COLUMN
from lm_eval_amplify.tasks_support.bootstrap import bootstrap_stderr
from lm_eval_amplify.tasks_support.identifiers import Identifiers, task_identifiers
from lm_eval_amplify.tasks_support.langid_metrics import (
    UNAMPLIFIED,
    WITH_ERROR,
    examine,
    metric_directions,
    metrics_of,
    sides_of,
)
from lm_eval_amplify.tasks_support.nan_means import nan_mean
from lm_eval_amplify.tasks_support.task import AmplifyTask
from lm_eval_amplify.tasks_support.two_sided import require_both_sides, require_stop_token


class LangIDTask(AmplifyTask):
    """A task whose documents :func:`~lm_eval_amplify.tasks_support.open_prompts.prompt_documents` makes.

    A document is one prompt. Its requests are generations from that prompt, with the same settings: amplified for each
    target language, then unamplified. Metrics: see :mod:`~lm_eval_amplify.tasks_support.langid_metrics`.
    """

    is_two_sided: ClassVar[bool] = True

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The target languages, as FLORES-200 codes."""
        return tuple(self.eval_docs[0]["targets"])

    @cached_property
    def identifiers(self) -> Identifiers:
        """The language identifiers that the metadata names."""
        metadata = self.config.metadata or {}
        return task_identifiers(metadata.get("lid"), metadata.get("second_lid"))

    def check_model(self, lm: Any) -> None:
        """Check that a model can run this task; called before anything is generated.

        Raises:
            ModelError: It cannot be amplified, or has no stop token.
            LanguageError: Its neuron file lacks a target language.
        """
        types = ("generate_until_amplified", "generate_until_unamplified")
        require_both_sides(lm, task=self.task_name, request_types=types, targets=self.targets)
        require_stop_token(lm, task=self.task_name)

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """Return the requests of a document; an amplified one carries its target language."""
        kwargs.pop("apply_chat_template", None)
        kwargs.pop("chat_template", None)
        return [
            Instance(
                request_type="generate_until_unamplified" if target is None else "generate_until_amplified",
                doc=doc if target is None else doc | {LANGUAGE_COLUMN: target},
                arguments=(ctx, deepcopy(self.config.generation_kwargs)),
                idx=position,
                **kwargs,
            )
            for position, target in enumerate(sides_of(doc))
        ]

    def process_results(self, doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
        """Return a document's metrics.

        The document, which the harness makes anew for this call and then logs, gets both sides' texts by name, each
        with its languages: the logged ``resps`` do not say which side they belong to.
        """
        written = {target: examine(text, self.identifiers) for target, text in zip(sides_of(doc), results, strict=True)}
        unamplified = written.pop(None)
        amplified = {target: one for target, one in written.items() if target is not None}
        doc["written"] = {
            UNAMPLIFIED: unamplified.logged,
            "amplified": {target: one.logged for target, one in amplified.items()},
        }
        if "bypass" in self._metric_fn_list:  # --predict_only
            return {}
        return metrics_of(doc, amplified, unamplified)

    def aggregation(self) -> dict[str, Callable[[Sequence[float]], Any]]:
        """Return each metric's aggregation over documents."""
        means: dict[str, Callable[[Sequence[float]], Any]] = dict.fromkeys(metric_directions(self.targets), nan_mean)
        return means | {f"{name}_stderr": bootstrap_stderr for name in WITH_ERROR}

    def higher_is_better(self) -> dict[str, bool]:
        """Return whether more of a metric is better."""
        return metric_directions(self.targets)

    def dump_config(self) -> dict[str, Any]:
        """Return the configuration as results have it, with the identifiers and their versions."""
        config: dict[str, Any] = super().dump_config()
        return config | {"language_identification": self.identifiers.names}

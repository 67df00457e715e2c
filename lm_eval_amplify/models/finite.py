"""Answers that come of logits that are not finite: seen as they are given, named once, counted in the results."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook

from lm_eval_amplify.errors import InterventionError, ModelError, did_you_mean
from lm_eval_amplify.generation import OfRows

OnNonFinite: TypeAlias = Literal["warn", "error"]

METRIC = "nonfinite,none"
"""Under this name a task's results count its requests without a finite answer; absent where there are none."""

_logger = logging.getLogger("lm_eval.amplified_hf")  # below the harness's logger, whose level and format it shares


class NonFiniteText(str):
    """A generated text of which some token was chosen from logits that are not finite."""

    __slots__ = ()


def check_on_nonfinite(value: str) -> None:
    """Check the argument ``on_nonfinite``.

    Raises:
        InterventionError: It is neither ``warn`` nor ``error``.
    """
    allowed = get_args(OnNonFinite)
    if value not in allowed:
        raise InterventionError(
            f"on_nonfinite={value}{did_you_mean(str(value), allowed)}: expected {', '.join(allowed)}"
        )


def is_finite(answer: Any) -> bool:
    """Return whether an answer of the harness's model is usable: a text, a log-likelihood, or a pair led by one."""
    if isinstance(answer, str):
        return not isinstance(answer, NonFiniteText)
    return math.isfinite(_value(answer))


class NonFiniteRows(OfRows):
    """Notes which rows of a generation ever had logits that are not finite, without waiting for the device."""

    def __init__(self) -> None:
        self._seen: torch.Tensor | None = None  # bool [rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002  # as called
        """Return the scores, ``[rows, vocabulary]``, as they are."""
        # The largest is NaN or infinite if any is NaN or +inf, or all are -inf; a few of -inf only rule out tokens.
        found = ~torch.isfinite(scores.amax(dim=-1))
        if self._seen is None:
            self._seen = found
        elif self.rows is None:
            self._seen = self._seen | found
        else:
            self._seen[self.rows] |= found
        return scores

    def among(self, texts: Sequence[str]) -> set[str]:
        """Return those of the contexts, one or several rows each in order, of which a row was noted."""
        if self._seen is None or not texts:
            return set()
        by_text = self._seen.reshape(len(texts), -1).any(dim=1).tolist()
        return {text for text, noted in zip(texts, by_text, strict=True) if noted}


class Watch(CacheHook):  # type: ignore[misc]  # the harness is untyped
    """Sees each answer of a group of requests as the model gives it, before the harness's cache does.

    Args:
        hook: The cache's own, which gets what is let through.
        requests: Of the group, to find an answer's task and document.
        condition: What the group runs under, for people.
        on_nonfinite: Whether an answer that is not finite is an error or a warning, the first of each task.
        warned: Tasks and conditions that have had theirs; added to.
    """

    def __init__(
        self,
        hook: CacheHook,
        requests: Sequence[Instance],
        condition: str,
        on_nonfinite: OnNonFinite,
        warned: set[tuple[str | None, str]],
    ) -> None:
        super().__init__(None)
        self.contexts: set[str] = set()
        """Contexts whose generation met logits that are not finite; the model adds them."""
        self._hook = hook
        self._requests = requests
        self._condition = condition
        self._on_nonfinite = on_nonfinite
        self._warned = warned

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Take one answer.

        Raises:
            ModelError: It is not finite, under ``on_nonfinite=error``; names the task, the document and the condition.
        """
        answer = self.marked(req[0], res)
        if not is_finite(answer):
            self._report(attr, req, answer)
        self._hook.add_partial(attr, req, answer)

    def marked(self, context: str, answer: Any) -> Any:
        """Return the answer to a context, a text as a :class:`NonFiniteText` if that is what it is."""
        return NonFiniteText(answer) if isinstance(answer, str) and context in self.contexts else answer

    def cannot_sample(self, context: str) -> ModelError:
        """Return the error of a generation that sampled from logits that are not finite, whatever was asked for."""
        line, _ = self._describe("generate_until", (context,), NonFiniteText())
        return ModelError(f"{line}, so that no token can be sampled; a smaller factor or dtype=float32 may help")

    def _report(self, attr: str, req: Any, answer: Any) -> None:
        line, task = self._describe(attr, req, answer)
        if self._on_nonfinite == "error":
            raise ModelError(f"{line}; a smaller factor or dtype=float32 may help, on_nonfinite=warn only counts them")
        if (task, self._condition) not in self._warned:
            self._warned.add((task, self._condition))
            _logger.warning("%s; the results count such requests as 'nonfinite'", line)

    def _describe(self, attr: str, req: Any, answer: Any) -> tuple[str, str | None]:
        request = self._by_text.get(_texts(req))
        task = request.task_name if request is not None else None
        where = f"task {task!r}, document {request.doc_id}" if request is not None else "a request"
        what = "the logits of the generated text are" if isinstance(answer, str) else f"the {attr} {_value(answer)} is"
        return f"{where}: {what} not finite, {self._condition}", task

    @cached_property
    def _by_text(self) -> dict[tuple[str, ...], Instance]:
        return {_texts(request.args): request for request in reversed(self._requests)}


def report_nonfinite(lm: Any, tasks: Iterable[Any], results: Mapping[str, Any] | None) -> None:
    """Count each task's requests without a finite answer, over all processes, into the results of an evaluation.

    Answers from a cache and those remembered are counted like new ones.

    Args:
        lm: The harness's model, with the argument ``on_nonfinite``.
        tasks: The evaluated tasks, with their answers.
        results: What the harness's ``evaluate`` returned, None in all processes but the first; added to.

    Raises:
        ModelError: There are some, under ``on_nonfinite=error``.
    """
    own = {task.task_name: sum(not all(map(is_finite, one.resps)) for one in task.instances) for task in tasks}
    gathered: list[dict[str, int]] | None = lm.gather_object(own)
    if gathered is None or results is None:
        return
    counts = sum(map(Counter, gathered), Counter())  # the sum of two leaves zeros out
    for task, count in counts.items():
        results["results"][task][METRIC] = count
    if counts and lm.on_nonfinite == "error":
        raise ModelError(
            "answers that are not finite were found in a cache: "
            + ", ".join(f"{count} of task {task!r}" for task, count in counts.items())
            + "; on_nonfinite=warn only counts them"
        )


def _value(answer: Any) -> float:
    return float(answer if isinstance(answer, int | float) else answer[0])


def _texts(arguments: Any) -> tuple[str, ...]:
    return tuple(part for part in arguments if isinstance(part, str))

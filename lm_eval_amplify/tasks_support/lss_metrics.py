"""The Language Steering Shift (LSS) of one fact, from its log-likelihoods.

Rahmanisa et al. 2025, "Unveiling the Influence of Amplifying Language-Specific Neurons" (arXiv 2507.22581).
With lp(x) = log P(x | prompt) in nats, lp_t the same with the neurons of t amplified, b the base language::

    shift_t = [lp_t(obj_t) - lp_t(obj_b)] - [lp(obj_t) - lp(obj_b)]
    LSS(b -> t) = share of facts with shift_t > 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_amplify.tasks_support.nan_means import nan_mean


class Scored(NamedTuple):
    """One request of a document: an object in some language, scored on one side."""

    target: str | None
    """The language whose neurons are amplified; None: the unamplified side."""
    object_language: str
    """The language that the object is named in."""
    continuation: str
    """The object, with what joins it to the prompt."""


def requests_of(document: Mapping[str, Any]) -> list[Scored]:
    """Return a document's requests: for each target two objects amplified, then all of them unamplified.

    A document with nothing to compare still asks for the base object on both sides: the harness needs a
    request of every document, and in a run of several processes each process requests of both types.
    """
    base, own = document["base_language"], document["continuation"]
    named = {t: document["continuations"][t] for t in document["targets"] if document["continuations"][t] is not None}
    amplified = [
        scored
        for target, continuation in named.items()
        for scored in (Scored(target, base, own), Scored(target, target, continuation))
    ]
    unamplified = [Scored(None, base, own), *(Scored(None, target, text) for target, text in named.items())]
    return (amplified or [Scored(document["targets"][0], base, own)]) + unamplified


def shifts_of(document: Mapping[str, Any], loglikelihoods: Sequence[float]) -> dict[str, float]:
    """Return ``shift_t`` in nats by target; NaN where the fact cannot be compared in that language.

    Args:
        document: As :func:`~lm_eval_amplify.tasks_support.facts.make_document` makes it.
        loglikelihoods: Of its requests, in the order of :func:`requests_of`, in nats.
    """
    answers = {
        (scored.target, scored.object_language): value
        for scored, value in zip(requests_of(document), loglikelihoods, strict=True)
    }
    base = document["base_language"]
    shifts = {}
    for target in document["targets"]:
        if document["continuations"][target] is None:
            shifts[target] = math.nan
            continue
        amplified = answers[target, target] - answers[target, base]
        shifts[target] = amplified - (answers[None, target] - answers[None, base])
    return shifts


def metrics_of(shifts: Mapping[str, float]) -> dict[str, float]:
    """Return a document's metrics from its shifts; the same keys whatever is NaN.

    ``lss_stderr`` and ``shift_stderr`` hold the same values once more: their aggregation is a bootstrap of
    them. They come after ``lss`` and ``shift`` because the harness has no standard error for our aggregation,
    writes ``N/A`` under the very key ``lss_stderr`` when it gets to ``lss``, and the later entry stays.
    """
    steered = {target: math.nan if math.isnan(shift) else float(shift > 0) for target, shift in shifts.items()}
    means = {"lss": nan_mean(steered.values()), "shift": nan_mean(shifts.values())}
    return (
        {f"lss_{target}": value for target, value in steered.items()}
        | {f"shift_{target}": value for target, value in shifts.items()}
        | means
        | {f"{name}_stderr": value for name, value in means.items()}
        | {"skipped": sum(map(math.isnan, shifts.values()))}
    )

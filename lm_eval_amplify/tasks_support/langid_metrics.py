"""LSS language ID of one prompt, from what was written on either side.

For a prompt in the base language b and a target t, with the neurons of t amplified::

    LSS-LID(b -> t) = P(text in t | amplified) - P(text in t | unamplified)

over prompts, the language of a text by a language identifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_amplify.langid import distinct_2, repetition
from lm_eval_amplify.tasks_support.identifiers import Identifiers, Judged
from lm_eval_amplify.tasks_support.nan_means import nan_mean

UNAMPLIFIED = "unamplified"

_OF_BOTH_SIDES = ("target_rate", "base_rate", "other_rate", "no_language_rate", "distinct_2", "repetition")
WITH_ERROR = ("lss_langid", "target_rate", f"target_rate_{UNAMPLIFIED}")
"""The metrics that have a standard error."""


class Written(NamedTuple):
    """A text that a model wrote, and what is made of it."""

    text: str
    judged: Judged
    distinct_2: float
    repetition: float

    @property
    def logged(self) -> dict[str, Any]:
        """For the samples."""
        return {
            "text": self.text,
            **self.judged.logged,
            "distinct_2": self.distinct_2,
            "repetition": self.repetition,
        }


def sides_of(document: Mapping[str, Any]) -> list[str | None]:
    """Return who writes, in the order of a document's requests: amplified for each target, then None, unamplified."""
    return [*document["targets"], None]


def examine(text: str, identifiers: Identifiers) -> Written:
    """Return what is made of a text."""
    return Written(text, identifiers.judge(text), distinct_2(text), repetition(text))


def metrics_of(document: Mapping[str, Any], amplified: Mapping[str, Written], unamplified: Written) -> dict[str, float]:
    """Return a document's metrics; the same keys whatever was written, NaN where there is no value.

    Those without a language in their name are means over the targets. After them come those of :data:`WITH_ERROR` once
    more, for their standard errors: the harness has none for our aggregation and writes ``N/A`` under the very key
    ``lss_langid_stderr`` when it gets to ``lss_langid``; the later entry stays.
    """
    base = document["base_language"]
    with_target = {target: _values(written, target, base) for target, written in amplified.items()}
    without = {target: _values(unamplified, target, base) for target in amplified}
    shift = {target: with_target[target]["target_rate"] - without[target]["target_rate"] for target in amplified}
    agreements = [one.judged.agree for one in (*amplified.values(), unamplified) if one.judged.agree is not None]
    means = {"lss_langid": nan_mean(shift.values())}
    for name in _OF_BOTH_SIDES:
        means[name] = nan_mean(values[name] for values in with_target.values())
        means[f"{name}_{UNAMPLIFIED}"] = nan_mean(values[name] for values in without.values())
    return (
        {f"lss_langid_{target}": value for target, value in shift.items()}
        | {f"target_rate_{target}": values["target_rate"] for target, values in with_target.items()}
        | means
        | {"lid_agreement": nan_mean(agreements) if agreements else math.nan}
        | {f"{name}_stderr": means[name] for name in WITH_ERROR}
    )


def metric_directions(targets: Sequence[str]) -> dict[str, bool]:
    """Return every metric but the standard errors, and whether more of it is better."""
    more = {"lss_langid", "target_rate", "distinct_2", "lid_agreement"}
    names = ["lss_langid", *(f"{name}{side}" for name in _OF_BOTH_SIDES for side in ("", f"_{UNAMPLIFIED}"))]
    per_target = {f"{name}_{target}": True for name in ("lss_langid", "target_rate") for target in targets}
    return per_target | {name: name.removesuffix(f"_{UNAMPLIFIED}") in more for name in (*names, "lid_agreement")}


def _values(written: Written, target: str, base: str) -> dict[str, float]:
    counts_as = written.judged.counts_as
    return {
        "target_rate": float(counts_as == target),
        "base_rate": float(counts_as == base),
        "other_rate": float(counts_as not in (target, base)),
        "no_language_rate": float(written.judged.why_other is not None),
        "distinct_2": written.distinct_2,
        "repetition": written.repetition,
    }

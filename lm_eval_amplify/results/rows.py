"""Results as rows: one for each task, metric and filter of a run, whichever version of the harness wrote it.

The schema is documented in docs/results.md and has a version, which changes when a column does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, NamedTuple

from lm_eval_amplify.results.entrants import Entrant, entrant_of
from lm_eval_amplify.results.files import ResultsFile

SCHEMA_VERSION = 1

LOWER_IS_BETTER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score", "ter"})
"""Of metrics that a file gives no direction."""
_HIGHER_IS_BETTER = frozenset({"acc", "acc_norm", "exact_match", "f1", "mcc", "bleu", "chrf", "chrf++"})
_NO_METRIC = frozenset({"name", "alias", "samples", "sample_len", "sample_count"})
_BYPASS = "bypass"  # what --predict_only reports, the same number always
_OF_A_LANGUAGE = re.compile(r"_([a-z]{3}_[A-Z][a-z]{3})$")


@dataclass(frozen=True)
class Row:
    """One number with all that says what it is."""

    schema: int
    """Version of this schema."""
    file: str
    """Path of the results."""
    date: str
    """When the evaluation began, ISO 8601 in UTC; empty if unknown."""
    harness: str
    """Version of the harness; empty before 0.4.9, which does not say."""
    model: str
    """Name, as it was asked for."""
    condition: str
    """What was done to the model and its prompts; empty: nothing."""
    signature: str
    """How the number came to be; of stock results as far as they say."""
    group: str
    """The outermost group with a number of its own that has the task; the task itself if none has."""
    task: str
    """Task, or group where the group has a number of its own."""
    is_group: bool
    """Whether ``task`` is a group."""
    protocol: str
    """Task version, few-shot examples, documents; rows are comparable only where it is equal."""
    documents: int | None
    """How many the number is over; None: the file does not say."""
    metric: str
    """Without filter."""
    filter: str
    """The filter of the harness that the answers went through."""
    higher_is_better: bool | None
    """Direction; None: there is none, or the file does not say."""
    value: float
    """NaN where it is no number."""
    stderr: float | None
    """Standard error; None where there is none."""

    @property
    def entrant(self) -> Entrant:
        """What the number is of."""
        return Entrant(self.model, self.condition, self.signature)

    @property
    def key(self) -> tuple[str, str, str]:
        """What two runs have in common: task, metric, filter."""
        return self.task, self.metric, self.filter

    @property
    def name(self) -> str:
        """Metric and filter, as the harness joins them; without the usual filter, ``none``."""
        return self.metric if self.filter == "none" else f"{self.metric},{self.filter}"


COLUMNS = tuple(field.name for field in fields(Row))


class _Protocol(NamedTuple):
    """How a task was run."""

    task: str
    version: str
    shots: str
    documents: int | None
    documents_in_all: int | None
    targets: tuple[str, ...]
    """Languages that a task of ours has metrics for: its means are over them."""


def rows_of(file: ResultsFile) -> list[Row]:
    """Return the rows of a file, in its order."""
    content = file.content
    entrant = entrant_of(content)
    groups = groups_of(content)
    within = _tables(content["results"], groups)
    rows = []
    for task, metrics in content["results"].items():
        leaves = leaves_of(task, groups) or [task]
        protocols = [_protocol_of(content, leaf) for leaf in leaves]
        for metric, name, value, stderr in _metrics_in(metrics):
            rows.append(
                Row(
                    schema=SCHEMA_VERSION,
                    file=str(file.path),
                    date=_date(content.get("date")),
                    harness=str(content.get("lm_eval_version") or ""),
                    model=entrant.model,
                    condition=entrant.condition,
                    signature=entrant.signature,
                    group=within.get(task, task),
                    task=task,
                    is_group=task in groups,
                    protocol=_describe(protocols, _plain((content.get("versions") or {}).get(task))),
                    documents=_sum([protocol.documents for protocol in protocols]),
                    metric=metric,
                    filter=name,
                    higher_is_better=_direction(content, leaves, metric),
                    value=value,
                    stderr=stderr,
                )
            )
    return rows


def groups_of(content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return each group's tasks and groups. Older versions list single tasks as empty groups; these are left out."""
    return {name: list(own) for name, own in (content.get("group_subtasks") or {}).items() if own}


def leaves_of(group: str, groups: Mapping[str, list[str]]) -> list[str]:
    """Return the tasks of a group and of the groups in it, each once; of a task none."""
    found: dict[str, None] = {}
    for name in groups.get(group, ()):
        found |= dict.fromkeys(leaves_of(name, groups) if name in groups else [name])
    return list(found)


def _tables(results: Mapping[str, Any], groups: Mapping[str, list[str]]) -> dict[str, str]:
    """Return for tasks and groups the outermost group with a number of its own; a group without only holds others."""
    within: dict[str, str] = {}
    for group in (name for name in groups if any(_metrics_in(results.get(name) or {}))):
        for name in (*_below(group, groups), group):
            if name not in within or within[name] in _below(group, groups):
                within[name] = group
    return within


def _below(group: str, groups: Mapping[str, list[str]]) -> set[str]:
    own = groups.get(group, [])
    return set(own).union(*(_below(name, groups) for name in own))


def _metrics_in(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Metric, filter, value, standard error; what is no number is none of them."""
    for key, value in metrics.items():
        metric, comma, name = key.partition(",")
        if not comma or metric in (*_NO_METRIC, _BYPASS) or metric.endswith("_stderr"):
            continue
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            stderr: Any = metrics.get(f"{metric}_stderr,{name}")
            is_known = isinstance(stderr, (int, float)) and math.isfinite(stderr)
            yield metric, name, math.nan if value is None else float(value), float(stderr) if is_known else None


def _direction(content: Mapping[str, Any], leaves: list[str], metric: str) -> bool | None:
    """Of the tasks themselves: what older versions say of a group is mixed up with other groups."""
    directions = content.get("higher_is_better") or {}
    said = {own[metric] for leaf in leaves if metric in (own := directions.get(leaf) or {})}
    if len(said) == 1:
        return said.pop()  # type: ignore[no-any-return]  # true, false or null
    if said:
        return None
    return False if metric in LOWER_IS_BETTER else True if metric in _HIGHER_IS_BETTER else None


def _protocol_of(content: Mapping[str, Any], task: str) -> _Protocol:
    size = (content.get("n-samples") or {}).get(task) or {}
    metrics = (content.get("results") or {}).get(task) or {}
    targets = {found[1] for key in metrics if (found := _OF_A_LANGUAGE.search(key.partition(",")[0]))}
    return _Protocol(
        task,
        _plain((content.get("versions") or {}).get(task)),
        _plain((content.get("n-shot") or {}).get(task)),
        size.get("effective"),
        size.get("original"),
        tuple(sorted(targets)),
    )


def _describe(protocols: list[_Protocol], version: str) -> str:
    """As ``version 1, 0-shot, 100 of 500 documents``; of a group with what identifies the tasks in it."""
    first = protocols[0]
    shots = sorted({protocol.shots for protocol in protocols})
    done, all_ = (_sum([getattr(one, name) for one in protocols]) for name in ("documents", "documents_in_all"))
    parts = [f"version {version}", f"{'/'.join(shots)}-shot"]
    parts.append(
        "documents unknown" if done is None else f"{done} of {all_} documents" if all_ else f"{done} documents"
    )
    targets = sorted({target for protocol in protocols for target in protocol.targets})
    if targets:
        parts.append(f"{len(targets)} targets ({_digest(targets)})" if len(targets) > 1 else f"target {targets[0]}")
    if len(protocols) > 1 or first.version != version:
        parts.append(f"{len(protocols)} tasks ({_digest(sorted(protocols))})")
    return ", ".join(parts)


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def _plain(value: Any) -> str:
    """A version or a number of examples, the same for 1, 1.0 and "1.0"."""
    text = str(value)
    if text in ("None", "N/A"):
        return "unknown"
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _date(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return ""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")

"""What amplification does to tasks: amplified minus unamplified, paired by document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from lm_eval_amplify.report.study.data import StudyData
from lm_eval_amplify.results.files import ResultsFile
from lm_eval_amplify.results.pairing import Run, paired_parts
from lm_eval_amplify.results.rows import Row, rows_of
from lm_eval_amplify.results.stats import Difference, Paired, holm, paired_difference, unpaired_difference
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.store import Stage
from lm_eval_amplify.task_languages import OWN_LANGUAGE

Relation: TypeAlias = Literal["self", "cross", "none"]
"""Of the amplified neurons to the task: of its language, of another one; ``none``: the task is in no language."""
SIDES: dict[Relation, str] = {"self": "self-language", "cross": "cross-language", "none": "task without a language"}


@dataclass(frozen=True)
class Change:
    """One task, or the mean over several of a group, under one condition."""

    stage: Stage
    task: str
    """As the study names it."""
    leaf: str
    """The harness's task; empty for a mean over several."""
    relation: Relation
    task_language: str | None
    target: str
    """Whose neurons are amplified; empty for a mean over several, each in its own language."""
    condition: Condition
    """A treatment."""
    seed: int | None
    """Of random neurons; None: the language's own."""
    metric: str
    unamplified: float
    amplified: float
    difference: Difference | None
    """None where there are fewer than two documents, or neither samples nor standard errors."""
    adjusted_p: float | None = None
    """By Holm's method over all that :func:`changes_of` returns in the same list; of random controls none."""
    is_share: bool = False
    """Whether the metric is a share of documents, so that percents are meant."""
    tasks: int = 1
    """How many tasks it is the mean of."""


class Changes(NamedTuple):
    """All of a study."""

    single: Sequence[Change]
    """For each of the harness's tasks."""
    means: Sequence[Change]
    """For each group of several the means of its tasks, self-language and cross-language."""


class _Part(NamedTuple):
    change: Change
    paired: Paired | None


def changes_of(study: StudyData) -> Changes:
    """Return the changes of all tasks that do not compare both sides by themselves and are no perplexities.

    Of a task that came after the choice those; else those of the sweep, under the conditions that are shown if there
    was a choice.

    Raises:
        ResultsError: scipy is not installed, or samples are damaged.
    """
    single: list[Change] = []
    means: list[Change] = []
    for task in study.record["tasks"]:
        file = study.unamplified(task)
        if file is None or study.is_two_sided(task):
            continue
        before = Run(file, rows_of(file))
        stages = {unit.stage for unit in study.stored.units if unit.task == task and unit.condition.is_amplified}
        stage = "then" if "then" in stages else "sweep"
        for unit, amplified in study.stored.units.items():
            if unit.task != task or not unit.condition.is_amplified or unit.stage != stage:
                continue
            parts = list(_parts(study, unit.stage, task, unit.condition, before, amplified))
            single += [part.change for part in parts]
            means += [
                mean for relation in SIDES if (mean := _mean([p for p in parts if p.change.relation == relation]))
            ]
    return Changes(_adjusted(single), _adjusted(means))


def _parts(
    study: StudyData, stage: Stage, task: str, condition: Condition, before: Run, amplified: ResultsFile
) -> list[_Part]:
    after = Run(amplified, rows_of(amplified))
    found = []
    for leaf, language in study.leaves(task).items():
        row = _main_row(before, leaf)
        if row is None or row.key not in after.by_key:
            continue
        new = after.by_key[row.key]
        target = language if condition.language == OWN_LANGUAGE else condition.language
        shown = study.shown.get(target or "")
        if stage == "sweep" and study.choices and not (shown and shown.condition == condition.treatment):
            continue  # of the grid what is shown; all of it would bury that, and cost the tests their power
        relation: Relation = "none" if language is None else "self" if language == target else "cross"
        parts = paired_parts((before, row), (after, new))
        paired = None if isinstance(parts, str) else parts[0]
        if paired is not None:
            difference = paired_difference([paired])
        elif row.stderr is not None and new.stderr is not None:
            difference = unpaired_difference(row.value, row.stderr, new.value, new.stderr)
        else:
            difference = None
        change = Change(
            *(stage, task, leaf, relation, language, target or "", condition.treatment, condition.seed),
            *(row.name, row.value, new.value, difference),
            is_share=paired is not None and paired.is_share,
        )
        found.append(_Part(change, paired))
    return found


def _main_row(run: Run, leaf: str) -> Row | None:
    """The task's first metric with a direction; none for texts' perplexities, which have a section of their own."""
    rows = [row for row in run.rows if row.task == leaf and not row.is_group]
    if any(row.metric == "bits_per_byte" for row in rows):
        return None
    return next((row for row in rows if row.higher_is_better), None)


def _mean(parts: Sequence[_Part]) -> Change | None:
    """Of several tasks of one metric, each with the same weight."""
    paired = [part.paired._replace(weight=1 / len(parts)) for part in parts if part.paired is not None]
    changes = [part.change for part in parts]
    if not parts or len(paired) < len(parts) or len({change.metric for change in changes}) > 1:
        return changes[0] if len(changes) == 1 else None
    targets = {change.target for change in changes}
    return replace(
        changes[0],
        leaf=changes[0].leaf if len(changes) == 1 else "",
        task_language=changes[0].task_language if len(changes) == 1 else None,
        target=targets.pop() if len(targets) == 1 else "",
        unamplified=sum(change.unamplified for change in changes) / len(changes),
        amplified=sum(change.amplified for change in changes) / len(changes),
        difference=changes[0].difference if len(changes) == 1 else paired_difference(paired),
        is_share=all(change.is_share for change in changes),
        tasks=len(changes),
    )


def _adjusted(changes: Sequence[Change]) -> list[Change]:
    """Random controls are no hypotheses: what they would cost the others is not theirs to cost."""
    tested = [i for i, one in enumerate(changes) if one.difference is not None and one.seed is None]
    found = list(changes)
    for i, p in zip(tested, holm([d.p for i in tested if (d := changes[i].difference)]), strict=True):
        found[i] = replace(found[i], adjusted_p=p)
    return found

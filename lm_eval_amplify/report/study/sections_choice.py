"""The section on what a study chose: a condition for each language, and how that compares with random neurons."""

from __future__ import annotations

from functools import partial

from lm_eval_amplify.report.study.data import Choice, StudyData
from lm_eval_amplify.report.study.drawing import full_name
from lm_eval_amplify.report.study.figures_lss import choices_figure
from lm_eval_amplify.report.study.parts import (
    Absent,
    Numbers,
    Section,
    band_in_words,
    numbers,
    picture,
    three,
    values,
    words,
)
from lm_eval_amplify.report.tables import Table
from lm_eval_amplify.sweep.conditions import Condition

NOTHING = "nothing chosen"
_CSV = (
    *("language", "condition", "slug", "value_when_choosing", "value_reported"),
    *("random_mean", "random_min", "random_max", "damage"),
)


def choice_section(study: StudyData) -> Section | Absent:
    """Return what was chosen for each language."""
    title = "What was chosen"
    if not study.choices:
        return Absent(title, "nothing is chosen yet" if study.choosing else "the study chooses nothing")
    choices = {language: study.choices[language] for language in study.languages if language in study.choices}
    metric = metric_name(study)
    rule = f"For each target language the condition that is best by {metric} on {study.choosing.get('task')}"
    chosen_by = (
        "Chosen on one half of the documents (even numbers), reported on the other."
        if study.choosing.get("split") == "half"
        else "Chosen and reported on the same documents: the values are those of the best of several, and so too high."
    )
    damage = "Damage is the mean over the tasks in other languages, in units of the limit." if _limits(study) else ""
    rows = [[full_name(language), *choice_cells(choice)] for language, choice in choices.items()]
    columns = [*words("language", "condition"), *values("when choosing", "reported", "random neurons", "damage")]
    table = numbers(
        "chosen",
        Table("Chosen conditions", "", columns, rows),
        _CSV,
        [[language, *_choice_values(choice)] for language, choice in choices.items()],
    )
    pictures = []
    if any(choice.condition is not None for choice in choices.values()):
        caption = (
            f"Chosen conditions: {metric} on the documents reported and on those chosen by; the bar is the range of "
            "the random controls."
        )
        make = partial(choices_figure, choices, metric)
        pictures.append(picture("chosen", f"{metric} of the chosen condition by language", caption, make, choices))
    paragraphs = [f"{rule}{_limit_in_words(study)}.", chosen_by, *([damage] if damage else [])]
    return Section("chosen", title, paragraphs, pictures, [table, *_candidates(study)], is_beside=True)


def choice_cells(choice: Choice) -> list[str]:
    """Return a choice as a reader sees it: condition, when choosing, reported, random neurons, damage."""
    if choice.condition is None:
        return [NOTHING, "", "", "", ""]
    band = band_in_words(choice.random)
    return [choice.condition.label, three(choice.value), three(choice.held_out), band, three(choice.damage)]


def metric_name(study: StudyData) -> str:
    """Return what conditions are chosen by."""
    metric = str(study.choosing.get("metric"))
    return metric.upper() if metric == "lss" else metric


def _candidates(study: StudyData) -> list[Numbers]:
    entries = study.choosing.get("languages") or {}
    rows, full = [], []
    for language in study.languages:
        for one in (entries.get(language) or {}).get("candidates") or ():
            label = Condition.of_dict(one["condition"]).label
            value, damage, is_allowed = one.get("value"), one.get("damage"), bool(one.get("allowed"))
            allowed = "yes" if is_allowed else "no"
            rows.append([full_name(language), label, three(value), three(damage), allowed])
            full.append([language, label, value, damage, int(is_allowed)])
    if not rows:
        return []
    columns = [*words("language", "condition"), *values("when choosing", "damage"), *words("under the limit")]
    table = Table("All conditions that could be chosen", "", columns, rows)
    names = ("language", "condition", "value_when_choosing", "damage", "is_allowed")
    return [numbers("candidates", table, names, full)._replace(is_shown=False)]


def _choice_values(choice: Choice) -> list[object]:
    if choice.condition is None:
        return [None] * 8
    random = [*choice.random[:3]] if choice.random else [None] * 3
    return [choice.condition.label, choice.condition.slug, choice.value, choice.held_out, *random, choice.damage]


def _limits(study: StudyData) -> list[str]:
    limits = []
    for metric, limit in (study.choosing.get("limit") or {}).items():
        if limit.get("ratio") is not None:
            limits.append(f"{metric}: {limit['ratio']:g} times that of the unamplified model")
        elif limit.get("difference") is not None:
            limits.append(f"{metric}: {limit['difference']:+g} against the unamplified model")
    return limits


def _limit_in_words(study: StudyData) -> str:
    limits = _limits(study)
    if not limits:
        return ", without a limit on the damage"
    task = study.choosing.get("limit_task")
    return f", among those within the limit ({', '.join(limits)}{f', on {task}' if task else ''})"

"""In which language the model writes: shares of texts in the target language, in the prompt's, in another, in none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from lm_eval_amplify.report.study.data import Shown, StudyData
from lm_eval_amplify.results.files import ResultsFile
from lm_eval_amplify.task_languages import OWN_LANGUAGE

Part: TypeAlias = Literal["target", "base", "other", "none"]
PARTS: tuple[Part, ...] = get_args(Part)
IN_WORDS: dict[Part, str] = {
    "target": "target language",
    "base": "prompt's language",
    "other": "another language",
    "none": "no language",
}
SIDES = ("amplified", "unamplified", "random neurons")


class Written(NamedTuple):
    """Texts from prompts in one language."""

    task: str
    target: str
    base: str
    side: str
    """One of :data:`SIDES`."""
    seed: int | None
    """Of random neurons."""
    condition: str
    """What is done, in words; empty: nothing."""
    counts: Mapping[Part, int]
    """Texts; each counts once."""


def written_of(study: StudyData) -> list[Written]:
    """Return what was written, by task, target and base language, under the conditions that are shown.

    Raises:
        ResultsError: Samples are damaged.
    """
    found = []
    for task in study.record["tasks"]:
        if not study.is_two_sided(task):
            continue
        for target, shown in study.shown.items():
            unit = study.unit(task, target)
            if unit is None:
                continue
            found += list(_of_file(task, target, shown, unit[1], study.leaves(task), None))
            for control, file in study.stored.units.items():
                is_random = control.task == task and control.condition.seed is not None
                is_its = control.condition.language in (OWN_LANGUAGE, target) and control.stage == unit[0].stage
                if is_random and is_its and control.condition.treatment == shown.condition:
                    found += list(_of_file(task, target, shown, file, study.leaves(task), control.condition.seed))
    return found


def shares(written: Sequence[Written]) -> dict[Part, float]:
    """Return the parts of all texts together, in percent."""
    counts: Counter[Part] = sum((Counter(one.counts) for one in written), Counter())
    return {part: 100 * counts[part] / max(1, counts.total()) for part in PARTS}


def _of_file(
    task: str, target: str, shown: Shown, file: ResultsFile, leaves: Mapping[str, str | None], seed: int | None
) -> Iterator[Written]:
    for leaf in leaves:
        by_side: dict[str, Counter[Part]] = {}
        base = ""
        for sample in file.samples(leaf) or ():
            document = sample.get("doc") or {}
            texts = (document.get("written") or {}).get("amplified") or {}
            base = document.get("base_language") or ""
            if target not in texts or base == target:
                continue
            sides = {"amplified" if seed is None else "random neurons": texts[target]}
            if seed is None:
                sides["unamplified"] = document["written"]["unamplified"]
            for side, text in sides.items():
                by_side.setdefault(side, Counter())[_part(text, target, base)] += 1
        for side, counts in by_side.items():
            condition = "" if side == "unamplified" else shown.condition.label
            yield Written(task, target, base, side, seed, condition, counts)


def _part(text: Mapping[str, Any], target: str, base: str) -> Part:
    """As the task's own rates count; a text in no language is in none of the others."""
    if text["counts_as"] == target:
        return "target"
    if text["counts_as"] == base:
        return "base"
    return "other" if text["why_other"] is None else "none"

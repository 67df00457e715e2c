"""The report of a study: everything that its folder has, as a page with its figures and tables as files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.report.study.data import Choice, StudyData
from lm_eval_amplify.report.study.drawing import full_name
from lm_eval_amplify.report.study.page import study_page
from lm_eval_amplify.report.study.parts import Absent, Section, counted, values, words
from lm_eval_amplify.report.study.sections_changes import change_sections
from lm_eval_amplify.report.study.sections_choice import choice_cells, choice_section, metric_name
from lm_eval_amplify.report.study.sections_neurons import neuron_section
from lm_eval_amplify.report.study.sections_pairs import pairs_section
from lm_eval_amplify.report.study.sections_perplexity import perplexity_sections
from lm_eval_amplify.report.study.sections_steering import curve_section
from lm_eval_amplify.report.study.sections_written import written_sections
from lm_eval_amplify.report.tables import Table
from lm_eval_amplify.sweep.store import StoredStudy, Unit
from lm_eval_amplify.task_languages import OWN_LANGUAGE
from lm_eval_amplify.whole_files import whole_file

PAGE = "index.html"


class Report(NamedTuple):
    """A report, not yet written."""

    files: Mapping[str, bytes]
    """By path in the report's folder."""
    summary: Table
    """What was chosen, or the best by LSS, for a terminal."""


def make_report(stored: StoredStudy) -> Report:
    """Return the report of a study; the same study gives the same bytes.

    Raises:
        AmplifyError: matplotlib or scipy is not installed, or samples are damaged.
    """
    study = StudyData(stored)
    found = _sections(study)
    sections = [one for one in found if isinstance(one, Section)]
    absent = [one for one in found if isinstance(one, Absent)]
    missing = [_in_words(unit) for unit in stored.missing]
    page = study_page(f"Study: {stored.record['name']}", _facts(study), missing, sections, absent)
    files = {PAGE: page.encode()}
    for section in sections:
        for picture in section.pictures:
            files[f"figures/{picture.name}.svg"] = picture.drawn.svg
            files[f"figures/{picture.name}.png"] = picture.drawn.png
        files |= {f"tables/{table.name}.csv": table.csv.encode() for table in section.numbers}
    return Report(files, _summary(study))


def write_report(report: Report, folder: Path) -> Path:
    """Write a report into a folder, each file whole, and return the page's path.

    Raises:
        ResultsError: It cannot be written.
    """
    try:
        for name, content in report.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(content)
    except OSError as error:
        raise ResultsError(f"--out {folder}: cannot be written: {error.strerror or error}") from error
    return folder / PAGE


def _sections(study: StudyData) -> list[Section | Absent]:
    found: list[Section | Absent] = [choice_section(study)]
    if not study.lss_tasks:
        found.append(Absent("LSS", "no task of the study measures it, or none is finished"))
    for task in study.lss_tasks:
        curves = [curve_section(study, task, axis) for axis in ("factor", "layer")]
        found += [one for one in curves if one is not None]
        found.append(pairs_section(study, task))
    found += [*change_sections(study), *perplexity_sections(study), *written_sections(study)]
    return [*found, neuron_section(study)]


def _facts(study: StudyData) -> list[str]:
    record, units = study.record, study.stored.units
    treatments = {u.condition.treatment for u in (*units, *study.stored.missing) if u.condition.is_amplified}
    named, tasks = ", ".join(map(full_name, study.languages)), ", ".join(record["tasks"])
    of_all = counted(len(units) + len(study.stored.missing), "unit")
    return [
        f"Model {record['model']}. {counted(len(study.languages), 'target language')}: {named}.",
        f"{counted(len(treatments), 'treatment')}. Tasks: {tasks}. {len(units)} of {of_all} of results.",
        f"Made with lm-eval-amplify {record['package_version']}.",
    ]


def _summary(study: StudyData) -> Table:
    metric = metric_name(study) if study.choices else "LSS"
    columns = [*words("language", "condition"), *values(f"{metric} when choosing", metric, "random neurons", "damage")]
    rows = []
    for language in study.languages:
        choice, shown = study.choices.get(language), study.shown.get(language)
        if choice is not None:
            rows.append([full_name(language), *choice_cells(choice)])
        elif shown is not None:
            task = study.lss_tasks[0]
            numbers = task.lss(shown.condition, language, is_choosing=True), task.lss(shown.condition, language)
            best = Choice(shown.condition, *numbers, task.band(shown.condition, language), math.nan)
            rows.append([full_name(language), *choice_cells(best)])
    note = "" if study.choices else "Nothing was chosen: the best of each language by LSS."
    return Table(f"Study: {study.record['name']}", note, columns, rows)


def _in_words(unit: Unit) -> str:
    condition = unit.condition
    parts = [f"{unit.stage}, {unit.task}, {condition.label}"]
    if condition.language != OWN_LANGUAGE:
        parts.append(f"neurons of {full_name(condition.language)}")
    if condition.seed is not None:
        parts.append(f"random neurons, seed {condition.seed}")
    return ", ".join(parts)

"""Sections on perplexity: whose neurons are amplified, and the language of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lm_eval_amplify.report.study.data import StudyData
from lm_eval_amplify.report.study.drawing import Names, full_name
from lm_eval_amplify.report.study.figures_matrix import Matrix, matrix_figure
from lm_eval_amplify.report.study.parts import Absent, Numbers, Section, numbers, picture, three, values, words
from lm_eval_amplify.report.study.perplexity import PerplexityMatrix, perplexity_matrices
from lm_eval_amplify.report.study.sections_pairs import starred_in_words
from lm_eval_amplify.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSV = ("neurons_of", "texts_in", "condition", "is_chosen", "unamplified", "amplified", "change")


def perplexity_sections(study: StudyData) -> list[Section | Absent]:
    """Return a section for each task of texts."""
    title = "Perplexity by language"
    found = perplexity_matrices(study)
    if not found:
        return [Absent(title, "no task has bits per byte both amplified, under a condition that is shown, and not")]
    sections: list[Section | Absent] = []
    for number, matrix in enumerate(found):
        of, suffix = (f", {matrix.task}", f"-{matrix.task}") if number else ("", "")
        sections.append(_section(study, matrix, f"perplexity{suffix}", f"{title}{of}"))
    return sections


def _section(study: StudyData, matrix: PerplexityMatrix, name: str, title: str) -> Section:
    starred = frozenset(
        language
        for language, shown in zip(matrix.amplified, matrix.conditions, strict=True)
        if not shown.is_chosen and study.choices
    )
    paragraphs = [
        (
            f"{matrix.task}: change of bits per byte against the unamplified model. Above 0 the texts became less "
            "likely. A frame marks a language's own texts."
        ),
        *_means_in_words(matrix),
        *(["These are the texts by which the damage was limited."] if matrix.is_limit else []),
        *([starred_in_words(study, starred).strip()] if starred else []),
        *([] if study.choices else ["Nothing was chosen: each language under its best condition by LSS."]),
    ]
    caption = "Change of bits per byte: rows, whose neurons are amplified; columns, the language of the texts."
    alt = "Change of bits per byte by language amplified and language of the texts"
    make = partial(_figure, matrix, starred)
    drawn = picture(name, alt, caption, make, [*matrix.amplified, *matrix.texts])
    return Section(name, title, paragraphs, [drawn], [_table(name, title, matrix)])


def _own(matrix: PerplexityMatrix) -> list[tuple[int, int]]:
    """The cells of a language's own texts."""
    return [(i, j) for i, one in enumerate(matrix.amplified) for j, text in enumerate(matrix.texts) if one == text]


def _means_in_words(matrix: PerplexityMatrix) -> list[str]:
    is_own = np.zeros(matrix.values.shape, dtype=bool)
    for cell in _own(matrix):
        is_own[cell] = True
    means = []
    for where, texts in ((is_own, "a language's own texts"), (~is_own, "the others' texts")):
        known = matrix.change[where & np.isfinite(matrix.change)]
        if known.size:
            means.append(f"{three(float(known.mean()), sign=True)} on {texts}")
    return [f"On average {', '.join(means)}."] if means else []


def _figure(matrix: PerplexityMatrix, starred: frozenset[str], names: Names) -> Figure:
    rows = [names(one) + (" *" if one in starred else "") for one in matrix.amplified]
    columns: Sequence[str] = [names(one) for one in matrix.texts]
    return matrix_figure(
        Matrix(
            *(matrix.change, rows, columns, "neurons of", "texts in", "change of bits per byte"),
            format="+.2f",
            is_change=True,
            is_more_better=False,
            outlined=_own(matrix),
        )
    )


def _table(name: str, title: str, matrix: PerplexityMatrix) -> Numbers:
    rows = [["unamplified", *map(three, matrix.unamplified.tolist())]]
    full: list[list[object]] = []
    for i, (language, shown) in enumerate(zip(matrix.amplified, matrix.conditions, strict=True)):
        change = matrix.change[i].tolist()
        rows.append([full_name(language), *(three(value, sign=True) for value in change)])
        sides = zip(matrix.texts, matrix.unamplified.tolist(), matrix.values[i].tolist(), change, strict=True)
        full += [[language, text, shown.condition.label, int(shown.is_chosen), *values] for text, *values in sides]
    columns = [*words("neurons of"), *values(*matrix.texts)]
    table = Table(f"{title}: unamplified, and the change", "", columns, rows)
    return numbers(name, table, _CSV, full)

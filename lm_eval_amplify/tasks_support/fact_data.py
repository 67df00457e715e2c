"""Loading of facts: rows in the columns of ``inayarhmns/MLAMA-dod-185`` to documents of one base language.

Columns: ``template`` (of the base language), and ``sub_<l>`` and ``obj_<l>``, the names of subject and
    object, for each
language, ``<l>`` being any code of it (``id``, ``ind``, ``ind_Latn``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import datasets

from lm_eval_amplify.data.splits import load_splits
from lm_eval_amplify.errors import DataError, LanguageError, did_you_mean
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.tasks_support.facts import OBJECT, SUBJECT, WORDINGS, Fact, Wording, make_document
from lm_eval_amplify.tasks_support.targets import asked_targets, comparable_targets

_SUBJECT_OF = "sub_"
_OBJECT_OF = "obj_"

# Below the harness's logger, whose level and format it shares.
_logger = logging.getLogger("lm_eval.amplify_data")


def load_facts(
    *,
    hub_path: str,
    hub_name: str,
    splits: list[str],
    base_language: str,
    wording: Wording = "cloze",
    data_dir: str | None = None,
    targets: Any = None,
    language: Any = None,
    neurons: Any = None,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Load a dataset of facts as documents; a task's ``custom_dataset``.

    Args:
        hub_path: Dataset on the Hub.
        hub_name: Its config: the base language's code there.
        splits: The splits that the task uses.
        base_language: FLORES-200 code of the templates' language.
        wording: How a template becomes a prompt; see :mod:`~lm_eval_amplify.tasks_support.facts`.
        data_dir: A local mirror; see :func:`~lm_eval_amplify.data.splits.load_splits`.
        targets: With ``language`` and ``neurons``: see
            :func:`~lm_eval_amplify.tasks_support.targets.asked_targets`.
        language: The model's.
        neurons: The model's.
        **_metadata: The model's other arguments and the task's metadata, which the harness hands over as
            well.

    Raises:
        LanguageError: There is no target language, or one is unknown.
        DataError: The dataset cannot be loaded, lacks a column, or holds no usable fact.
    """
    asked = asked_targets(targets=targets, language=language, neurons=neurons)
    found = load_splits(hub_path, hub_name, splits, data_dir)
    source = f"{hub_path} ({hub_name})"
    return {
        split: fact_documents(
            rows, rows.column_names, source=source, base_language=base_language, asked=asked, wording=wording
        )
        for split, rows in found.items()
    }


def fact_documents(
    rows: Iterable[Mapping[str, Any]],
    columns: Iterable[str],
    *,
    source: str,
    base_language: str,
    asked: tuple[str, ...],
    wording: Wording = "cloze",
) -> datasets.Dataset:
    """Make a document of every fact; log lines count those left out, and name targets without objects.

    Args:
        rows: The facts.
        columns: Their columns.
        source: Where they come from, for messages.
        base_language: FLORES-200 code of the templates' language.
        asked: The target languages asked for; the base language among them is left out.
        wording: How a template becomes a prompt.

    Raises:
        NoTargetError: No target language is left.
        DataError: A column is missing, a cell is no text, a template lacks a slot, or no fact is left.
    """
    if wording not in WORDINGS:
        raise DataError(f"wording={wording!r}{did_you_mean(str(wording), WORDINGS)}: expected {', '.join(WORDINGS)}")
    columns = list(columns)
    subject_columns, object_columns = _by_language(columns, _SUBJECT_OF), _by_language(columns, _OBJECT_OF)
    own_columns = ("template", subject_columns.get(base_language), object_columns.get(base_language))
    if None in own_columns or "template" not in columns:
        raise DataError(
            f"{source}: expected the columns template, {_SUBJECT_OF}<l> and {_OBJECT_OF}<l> with <l> a code "
            f"of {base_language}; it has {', '.join(columns)}"
        )
    targets = comparable_targets(asked, base_language, object_columns, source)
    languages = {language: object_columns[language] for language in (base_language, *targets)}
    more = [
        name
        for name in columns
        if not name.startswith((_SUBJECT_OF, _OBJECT_OF)) and name not in ("template", "language")
    ]
    documents = []
    number = 0
    for number, row in enumerate(rows, start=1):
        place = f"{source}, row {number}"
        fact = Fact(
            template=_template(row["template"], place),
            subject=_name(row, subject_columns[base_language], place),
            objects={language: _name(row, column, place) for language, column in languages.items()},
            more={name: row[name] for name in more},
        )
        document = make_document(fact, base_language, targets, wording)
        if document is not None:
            documents.append(document)
    if len(documents) < number:
        _logger.info(
            "%s: %d of %d facts left out, whose template names the subject only after the object",
            source, number - len(documents), number,
        )  # fmt: skip
    if not documents:
        raise DataError(f"{source}: no fact left of {number}: in every template {SUBJECT} comes after {OBJECT}")
    return datasets.Dataset.from_list(documents)


def _by_language(columns: Iterable[str], prefix: str) -> dict[str, str]:
    """The columns ``<prefix><language>`` by the language's FLORES-200 code."""
    found = {}
    for column in columns:
        if column.startswith(prefix):
            try:
                found[canonical_language(column.removeprefix(prefix))] = column
            except LanguageError:  # obj_label and the like
                continue
    return found


def _template(value: Any, place: str) -> str:
    if not isinstance(value, str) or SUBJECT not in value or OBJECT not in value:
        raise DataError(f"{place}: template {value!r}, expected a text with {SUBJECT} and {OBJECT}")
    return value


def _name(row: Mapping[str, Any], column: str, place: str) -> str | None:
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: column {column!r} holds {value!r}, expected a text or nothing")
    return value if value is not None and value.strip() else None

"""The facts of babel's corpus as documents of the Language Steering Shift: an LSS task without a download."""

from __future__ import annotations

from typing import Any

import datasets

from lm_eval_amplify.babel.corpus import LANGUAGES, fact_texts
from lm_eval_amplify.tasks_support.fact_data import fact_documents
from lm_eval_amplify.tasks_support.targets import asked_targets


def load_babel_facts(
    *, base_language: str, targets: Any = None, language: Any = None, neurons: Any = None, **_metadata: Any
) -> dict[str, datasets.Dataset]:
    """Make the documents of one base language; a task's ``custom_dataset``.

    Args:
        base_language: FLORES-200 code of the prompts' language.
        targets: With ``language`` and ``neurons``: see
            :func:`~lm_eval_amplify.tasks_support.targets.asked_targets`.
        language: The model's.
        neurons: The model's.
        **_metadata: The model's other arguments and the task's metadata, which the harness hands over as
            well.

    Raises:
        LanguageError: There is no target language, or one is unknown.
    """
    asked = asked_targets(targets=targets, language=language, neurons=neurons)
    return {"test": babel_facts(base_language, asked)}


def babel_facts(base_language: str, targets: tuple[str, ...]) -> datasets.Dataset:
    """Return a document of every fact, in the columns of :func:`~lm_eval_amplify.tasks_support.facts.make_document`.

    Raises:
        NoTargetError: babel has none of the targets, but for the base language itself.
    """
    by_language = {language: fact_texts(language) for language in LANGUAGES}
    rows = [
        {
            "fact": key,
            "template": own.template,
            f"sub_{base_language}": own.subject,
            **{f"obj_{language}": by_language[language][key].object for language in LANGUAGES},
        }
        for key, own in by_language[base_language].items()
    ]
    return fact_documents(rows, rows[0], source="babel's facts", base_language=base_language, asked=targets)

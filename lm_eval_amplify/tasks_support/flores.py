"""FLORES in any of its languages, from FLORES+ on the Hub or a mirror of that or of FLORES-200."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from lm_eval_amplify.data.sources import DEVTEST, FLORES_PLUS, flores_plus_code
from lm_eval_amplify.errors import DataError
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.tasks_support.datasets import load_task_data


def load_flores(
    language: str, splits: Sequence[str] = (DEVTEST,), data_dir: str | None = None
) -> dict[str, datasets.Dataset]:
    """Load sentences: columns ``id`` and ``sentence`` (aligned among languages by ``id``), and ``amplify_language``.

    Args:
        language: A FLORES-200 or FLORES+ code, an ISO code or an English name.
        splits: ``dev``, ``devtest``.
        data_dir: A local mirror; see :func:`~lm_eval_amplify.tasks_support.datasets.load_task_data`.

    Raises:
        LanguageError: The language is unknown.
        DataError: FLORES has no such language, or cannot be loaded.
    """
    code = canonical_language(language)
    return load_task_data(
        hub_path=FLORES_PLUS,
        hub_name=flores_plus_code(code),
        splits=list(splits),
        amplify_language=code,
        data_dir=data_dir,
    )


def load_any_flores(
    *, flores_language: Any = None, data_dir: str | None = None, **_metadata: Any
) -> dict[str, datasets.Dataset]:
    """Load the devtest sentences of the language that the user names; a task's ``custom_dataset``.

    Args:
        flores_language: Metadata ``flores_language``.
        data_dir: A local mirror.
        **_metadata: The model's arguments and the task's other metadata, which the harness hands over as well.

    Raises:
        LanguageError: The language is unknown.
        DataError: None is named, FLORES has no such language, or it cannot be loaded.
    """
    if not isinstance(flores_language, str) or not flores_language.strip():
        raise DataError(
            f"flores_language={flores_language!r}: expected one language; give it with "
            '--metadata \'{"flores_language": "jav_Latn"}\''
        )
    return load_flores(flores_language, data_dir=data_dir)

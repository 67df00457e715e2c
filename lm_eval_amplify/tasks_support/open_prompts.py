"""Prompts that a model goes on writing from: our own in 18 languages, and the first halves of sentences of FLORES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.facts import writes_spaces
from lm_eval_amplify.tasks_support.flores import load_flores
from lm_eval_amplify.tasks_support.identifiers import task_identifiers
from lm_eval_amplify.tasks_support.targets import asked_targets, other_targets

TEST = "test"


def load_open_prompts(*, base_language: str, **metadata: Any) -> dict[str, datasets.Dataset]:
    """Load the prompts that ship with the package; a task's ``custom_dataset``.

    Args:
        base_language: FLORES-200 code of the prompts' language.
        **metadata: As in :func:`prompt_documents`.

    Raises:
        AmplifyError: As in :func:`prompt_documents`.
        DataError: There are no prompts in that language.
    """
    path = tasks_folder() / "lss_langid" / "prompts" / f"{base_language}.txt"
    if not path.is_file():
        raise DataError(f"no open prompts in {base_language}: expected {path}")
    prompts = path.read_text(encoding="utf-8").splitlines()
    return {TEST: prompt_documents(prompts, base_language, **metadata)}


def load_flores_openings(
    *, base_language: str, data_dir: str | None = None, splits: Sequence[str], **metadata: Any
) -> dict[str, datasets.Dataset]:
    """Load the first half of each sentence of FLORES; a task's ``custom_dataset``.

    Args:
        base_language: FLORES-200 code of the sentences' language.
        data_dir: A local mirror.
        splits: Those of FLORES.
        **metadata: As in :func:`prompt_documents`.

    Raises:
        AmplifyError: As in :func:`prompt_documents`.
        DataError: FLORES cannot be loaded.
    """
    found = load_flores(base_language, splits, data_dir)
    return {
        split: prompt_documents(
            [first_half(text, base_language) for text in rows["sentence"]], base_language, **metadata
        )
        for split, rows in found.items()
    }


def prompt_documents(
    prompts: Sequence[str],
    base_language: str,
    *,
    targets: Any = None,
    language: Any = None,
    neurons: Any = None,
    lid: Any = None,
    second_lid: Any = None,
    **_metadata: Any,
) -> datasets.Dataset:
    """Make a document of every prompt: ``prompt``, ``base_language`` and ``targets``.

    Args:
        prompts: The prompts.
        base_language: Their language, FLORES-200 code; it is no target of its own.
        targets: With ``language`` and ``neurons``: see :func:`~lm_eval_amplify.tasks_support.targets.asked_targets`.
        language: The model's.
        neurons: The model's.
        lid: With ``second_lid``: see :func:`~lm_eval_amplify.tasks_support.identifiers.task_identifiers`. Whether the
            identifier knows the languages is found here, before anything is generated.
        second_lid: The identifier for agreement.
        **_metadata: The model's other arguments and the task's metadata, which the harness hands over as well.

    Raises:
        NoTargetError: There is no target language.
        LanguageIDError: There is no such identifier, or it does not know the base language or a target.
    """
    chosen = other_targets(asked_targets(targets=targets, language=language, neurons=neurons), base_language)
    task_identifiers(lid, second_lid, languages=(base_language, *chosen))
    return datasets.Dataset.from_list(
        [{"prompt": prompt, "base_language": base_language, "targets": list(chosen)} for prompt in prompts]
    )


def first_half(sentence: str, language: str) -> str:
    """Return the first half of a sentence's words, rounded up; of its characters where no spaces stand between words.

    >>> first_half("The sea is calm today.", "eng_Latn"), first_half("海面平静。", "zho_Hans")
    ('The sea is', '海面平')
    """
    if not writes_spaces(language):
        return sentence[: (len(sentence) + 1) // 2]
    words = sentence.split()
    return " ".join(words[: (len(words) + 1) // 2])

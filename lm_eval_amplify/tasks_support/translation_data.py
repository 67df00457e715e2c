"""Sentences of FLORES in two languages, aligned: what is translated, and the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from lm_eval_amplify.data.sources import DEVTEST
from lm_eval_amplify.errors import DataError, LanguageError
from lm_eval_amplify.languages import canonical_language, language_name
from lm_eval_amplify.tasks_support.corpus_scores import bleu_tokenizer
from lm_eval_amplify.tasks_support.flores import load_flores
from lm_eval_amplify.tasks_support.identifiers import task_identifiers


def load_translations(
    *,
    source_language: str,
    target_language: str,
    splits: Sequence[str] = (DEVTEST,),
    data_dir: str | None = None,
    lid: Any = None,
    second_lid: Any = None,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Load the sentences of a pair of languages; a task's ``custom_dataset``.

    Args:
        source_language: A FLORES-200 or FLORES+ code, an ISO code or an English name.
        target_language: Likewise.
        splits: ``dev``, ``devtest``.
        data_dir: A local mirror.
        lid: With ``second_lid``: see :func:`~lm_eval_amplify.tasks_support.identifiers.task_identifiers`; ``none``: no
            language is identified.
        second_lid: The identifier for agreement.
        **_metadata: The model's arguments and the task's other metadata, which the harness hands over as well.

    Returns:
        Documents with ``id``, ``source``, ``reference``, ``source_language``, ``target_language``, their English names
        ``source_name`` and ``target_name``, and ``amplify_language``, which is the target language.

    Raises:
        LanguageError: A language is unknown, or both are the same.
        DataError: FLORES lacks a language or cannot be loaded, its languages are not aligned, or the tokenizer of the
            target language is not installed.
        LanguageIDError: There is no such identifier, or it does not know a language.
    """
    source, target = canonical_language(source_language), canonical_language(target_language)
    if source == target:
        raise LanguageError(f"translation from {source} into {target}: expected two languages")
    bleu_tokenizer(target)
    task_identifiers(lid, second_lid, languages=(source, target), is_optional=True)
    found, references = (load_flores(language, splits, data_dir) for language in (source, target))
    return {split: _aligned(found[split], references[split], source, target, split) for split in splits}


def load_any_translations(
    *, flores_source: Any = None, flores_target: Any = None, **metadata: Any
) -> dict[str, datasets.Dataset]:
    """Load the sentences of the pair that the user names; a task's ``custom_dataset``.

    Args:
        flores_source: Metadata ``flores_source``: the language to translate from.
        flores_target: Metadata ``flores_target``: the language to translate into.
        **metadata: As in :func:`load_translations`.

    Raises:
        AmplifyError: As in :func:`load_translations`.
        DataError: One of the languages is not named.
    """
    for name, value in (("flores_source", flores_source), ("flores_target", flores_target)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{name}={value!r}: expected one language; give both with "
                '--metadata \'{"flores_source": "eng_Latn", "flores_target": "jav_Latn"}\''
            )
    return load_translations(source_language=flores_source, target_language=flores_target, **metadata)


def _aligned(
    sources: datasets.Dataset, references: datasets.Dataset, source: str, target: str, split: str
) -> datasets.Dataset:
    by_id = dict(zip(references["id"], references["sentence"], strict=True))
    lacking = [number for number in sources["id"] if number not in by_id]
    if lacking or len(by_id) != len(sources):
        raise DataError(
            f"FLORES {split} of {source} and of {target} are not the same sentences: {len(sources)} and {len(by_id)} "
            f"rows, of which {len(sources) - len(lacking)} have an id in common"
        )
    return datasets.Dataset.from_list(
        [
            {
                "id": number,
                "source": sentence,
                "reference": by_id[number],
                "source_language": source,
                "target_language": target,
                "source_name": language_name(source),
                "target_name": language_name(target),
                "amplify_language": target,
            }
            for number, sentence in zip(sources["id"], sources["sentence"], strict=True)
        ]
    )

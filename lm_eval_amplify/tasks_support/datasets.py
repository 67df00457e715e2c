"""Datasets of our tasks: from the Hub, or from a local mirror of the same columns."""

from __future__ import annotations

from typing import Any

import datasets

from lm_eval_amplify.data.splits import load_splits


def load_task_data(
    *,
    hub_path: str,
    hub_name: str,
    splits: list[str],
    amplify_language: str,
    data_dir: str | None = None,
    **_metadata: Any,
) -> dict[str, datasets.Dataset]:
    """Load a task's splits and say of every document which language it is in; a task's ``custom_dataset``.

    Args:
        hub_path: Dataset on the Hub, ``cambridgeltl/xcopa``.
        hub_name: Its config, ``id``.
        splits: The splits that the task uses.
        amplify_language: FLORES-200 code for the column ``amplify_language`` that every document gets.
        data_dir: A local mirror, ``DIR/<org>/<name>/<config>/<split>.jsonl`` (or ``.jsonl.gz``, ``.parquet``); by
            default the environment variable ``LM_EVAL_AMPLIFY_DATA_DIR``, else the Hub.
        **_metadata: The model's arguments and the task's metadata, which the harness hands over as well.

    Raises:
        DataError: The dataset cannot be loaded or scored; names what was looked for and how to get it.
    """
    found = load_splits(hub_path, hub_name, splits, data_dir)
    return {split: rows.add_column("amplify_language", [amplify_language] * len(rows)) for split, rows in found.items()}

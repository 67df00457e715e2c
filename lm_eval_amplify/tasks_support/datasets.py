"""Datasets of our tasks: from the Hub, or from a local mirror of the same columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
from pyarrow import ArrowInvalid, ArrowTypeError

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.tasks_support.mirror import DATA_DIR, find_split, mirror_folder


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
        DataError: The dataset cannot be loaded; names what was looked for and how to get it.
    """
    found = load_splits(hub_path, hub_name, splits, data_dir)
    return {split: rows.add_column("amplify_language", [amplify_language] * len(rows)) for split, rows in found.items()}


def load_splits(
    hub_path: str, hub_name: str, splits: list[str], data_dir: str | None = None
) -> dict[str, datasets.Dataset]:
    """Load the splits of a dataset as they are, from the mirror in force or the Hub.

    Args:
        hub_path: Dataset on the Hub, ``cambridgeltl/xcopa``.
        hub_name: Its config, ``id``.
        splits: The splits wanted.
        data_dir: A local mirror, as in :func:`load_task_data`.

    Raises:
        DataError: The dataset cannot be loaded; names what was looked for and how to get it.
    """
    mirror = mirror_folder(data_dir)
    if mirror is None:
        return _from_hub(hub_path, hub_name, splits)
    return {split: _read_split(find_split(mirror, hub_path, hub_name, split)) for split in splits}


def _from_hub(hub_path: str, hub_name: str, splits: list[str]) -> dict[str, datasets.Dataset]:
    try:
        loaded = datasets.load_dataset(hub_path, hub_name)
    except Exception as error:  # datasets raises some twenty types, from connection to parsing
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"cannot load {hub_path} ({hub_name}) from the Hub: {reason}; without a network give a local mirror with "
            f'--metadata \'{{"data_dir": "DIR"}}\' or {DATA_DIR}=DIR'
        ) from error
    missing = [split for split in splits if split not in loaded]
    if missing:
        raise DataError(f"{hub_path} ({hub_name}) has no split {missing[0]!r}; it has {', '.join(loaded)}")
    return {split: loaded[split] for split in splits}


def _read_split(path: Path) -> datasets.Dataset:
    return _read_parquet(path) if path.suffix == ".parquet" else _read_json_lines(path)


def _read_parquet(path: Path) -> datasets.Dataset:
    import pyarrow.parquet

    try:
        return datasets.Dataset(pyarrow.parquet.read_table(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error).partition(chr(10))[0]}") from error


def _read_json_lines(path: Path) -> datasets.Dataset:
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if line.strip():
                    rows.append(_row(json.loads(line)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: invalid JSON ({error.msg})") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, after line {number}: cannot be read ({error})") from error
    except TypeError as error:
        raise DataError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    # A row may lack a column that another has; the library goes by the first row.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return datasets.Dataset.from_list([{name: row.get(name) for name in columns} for row in rows])
    except (ArrowInvalid, ArrowTypeError) as error:
        raise DataError(f"{path}: rows do not agree on a column's type ({error})") from error


def _row(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object with the row's columns, found {json.dumps(value)[:60]}")
    return value

"""Reading and writing the files of a mirror: JSON lines, plain or compressed, and parquet."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
from pyarrow import ArrowInvalid, ArrowTypeError

from lm_eval_amplify.errors import DataError


def read_rows(path: Path) -> datasets.Dataset:
    """Read a file of rows, columns as they are.

    Raises:
        DataError: It is truncated, garbled or empty; names the file and, in JSON lines, the line.
    """
    return _read_parquet(path) if path.suffix == ".parquet" else _read_json_lines(path)


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write rows as JSON lines and return how many; the file appears only when it is whole.

    Raises:
        DataError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    number = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            for number, row in enumerate(rows, start=1):  # noqa: B007  # the count is the answer
                file.write(json.dumps(dict(row), ensure_ascii=False, default=str) + "\n")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # whatever kept it from being written
            partial.unlink(missing_ok=True)
    return number


def _read_parquet(path: Path) -> datasets.Dataset:
    import pyarrow.parquet

    try:
        rows = datasets.Dataset(pyarrow.parquet.read_table(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error).partition(chr(10))[0]}") from error
    if not len(rows):
        raise DataError(f"{path} has no rows")
    return rows


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

"""Reading a dataset from the Hub, or from a local folder of the Hub's form."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from lm_eval_amplify.data.mirror import DATA_DIR
from lm_eval_amplify.data.sources import Source
from lm_eval_amplify.errors import DataError, did_you_mean

_WORTH_ANOTHER_WAY = (RuntimeError, ValueError)
"""What `datasets` raises for a dataset that needs a script, and for one that does not know the config."""

_UNKNOWN_CONFIG = re.compile(r"BuilderConfig '.*' not found\. Available: (\[.*\])")


def read_hub(hub_path: str, hub_name: str, splits: list[str], source: Source) -> dict[str, datasets.Dataset]:
    """Read splits of a dataset, columns as on the Hub.

    Args:
        hub_path: Dataset on the Hub, or a folder of that form below the working directory.
        hub_name: Its config.
        splits: The splits wanted.
        source: What is known of the dataset.

    Raises:
        DataError: It cannot be loaded: there is no network, no such config or split, or it is gated.
    """
    loaded = _load(hub_path, hub_name, splits, source)
    missing = [split for split in splits if split not in loaded]
    if missing:
        raise DataError(f"{hub_path} ({hub_name}) has no split {missing[0]!r}; it has {', '.join(loaded)}")
    return {split: loaded[split] for split in splits}


def _load(hub_path: str, hub_name: str, splits: list[str], source: Source) -> datasets.DatasetDict:
    errors: list[Exception] = []
    for arguments in _ways(hub_path, hub_name, splits, source):
        try:
            return datasets.load_dataset(**arguments)
        except Exception as error:  # noqa: BLE001, PERF203  # some twenty types, from connection to parsing
            errors.append(error)
            if not isinstance(errors[0], _WORTH_ANOTHER_WAY):
                break
    raise DataError(_explained(hub_path, hub_name, source, errors[0])) from errors[0]


def _ways(hub_path: str, hub_name: str, splits: list[str], source: Source) -> Iterator[dict[str, Any]]:
    """Arguments for ``load_dataset``: as documented, then for a dataset that still needs a script."""
    yield {"path": hub_path, "name": hub_name}
    # The Hub itself keeps such datasets as parquet on a branch, a folder per config.
    yield {"path": hub_path, "data_dir": hub_name, "revision": "refs/convert/parquet"}
    if source.json_files:
        base = hub_path if Path(hub_path).is_dir() else f"hf://datasets/{hub_path}"
        files = {split: f"{base}/{source.json_files.format(split=split, config=hub_name)}" for split in splits}
        yield {"path": "json", "data_files": files}


def _explained(hub_path: str, hub_name: str, source: Source, error: Exception) -> str:
    what = f"cannot load {hub_path} ({hub_name}) from the Hub"
    mirror = f'give a local mirror with --metadata \'{{"data_dir": "DIR"}}\' or {DATA_DIR}=DIR'
    unknown = _UNKNOWN_CONFIG.search(str(error))
    if unknown:
        known = ast.literal_eval(unknown[1])
        return f"{what}: it has no such config{did_you_mean(hub_name, known)}; it has {len(known)}: {_shortened(known)}"
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if source.is_gated:
        reason += (
            f"; the dataset is gated: accept its terms at https://huggingface.co/datasets/{hub_path}, then log in "
            "with `hf auth login` (or set HF_TOKEN)"
        )
    return f"{what}: {reason}; without a network {mirror}"


def _shortened(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

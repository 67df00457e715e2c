"""A local mirror of datasets: ``DIR/<org>/<name>/<config>/<split>.jsonl`` (or ``.jsonl.gz``, ``.parquet``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_amplify.errors import DataError, did_you_mean

DATA_DIR = "LM_EVAL_AMPLIFY_DATA_DIR"
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

_logger = logging.getLogger("lm_eval.amplify_data")  # below the harness's logger, whose level and format it shares


def mirror_folder(data_dir: str | None) -> Path | None:
    """Return the mirror that is in force: ``data_dir``, else the environment variable, else None (the Hub)."""
    folder = data_dir or os.environ.get(DATA_DIR)
    return Path(folder) if folder else None


def find_split(mirror: Path, hub_path: str, hub_name: str, split: str) -> Path:
    """Return the file of a split.

    Raises:
        DataError: The mirror lacks it, or has it twice; names what was looked for and what is there.
    """
    if not mirror.is_dir():
        raise DataError(f"data_dir={mirror} is not a folder; expected {mirror}/{hub_path}/{hub_name}/{split}.jsonl")
    config = mirror / hub_path / hub_name
    if not config.is_dir():
        siblings = sorted(path.name for path in config.parent.glob("*") if path.is_dir())
        has = f"; {config.parent} has {', '.join(siblings)}" if siblings else ""
        raise DataError(
            f"no {hub_path} ({hub_name}) in data_dir={mirror}: "
            f"looked for {config}{did_you_mean(hub_name, siblings)}{has}"
        )
    found = [path for suffix in SUFFIXES if (path := config / f"{split}{suffix}").is_file()]
    if len(found) != 1:
        expected = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        came = " and ".join(path.name for path in found) or "none"
        raise DataError(f"{config}: expected one of {expected}, found {came}")
    return found[0]


def mirrored_members(members: list[Any], registry: Mapping[str, Any], data_dir: str | None) -> list[Any]:
    """Return those tasks of a group whose dataset the mirror in force has; all of them where it has none.

    A mirror often holds a few of a benchmark's languages. The group then runs on those, and a warning names the rest.

    Args:
        members: Names of tasks, or dicts with further settings, as in a group's YAML.
        registry: The harness's index of tasks, whose entries hold the tasks' configurations.
        data_dir: As in :func:`mirror_folder`.
    """
    mirror = mirror_folder(data_dir)
    if mirror is None:
        return members
    missing = [member for member in members if not _is_mirrored(member, registry, mirror)]
    if not missing or len(missing) == len(members):
        return members
    _logger.warning("data_dir=%s lacks the data of %s: left out of the group", mirror, ", ".join(map(str, missing)))
    return [member for member in members if member not in missing]


def _is_mirrored(member: Any, registry: Mapping[str, Any], mirror: Path) -> bool:
    entry = registry.get(member) if isinstance(member, str) else None
    source: dict[str, str] = (getattr(entry, "cfg", None) or {}).get("dataset_kwargs") or {}
    if "hub_path" not in source:
        return True
    return (mirror / source["hub_path"] / source["hub_name"]).is_dir()

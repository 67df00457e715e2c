"""A local mirror of datasets: ``DIR/<org>/<name>/<config>/<split>.jsonl`` (or ``.jsonl.gz``, ``.parquet``)."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval_amplify.data.sources import source_of
from lm_eval_amplify.errors import DataError, did_you_mean

DATA_DIR = "LM_EVAL_AMPLIFY_DATA_DIR"
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

_logger = logging.getLogger("lm_eval.amplify_data")  # below the harness's logger, whose level and format it shares


def mirror_folder(data_dir: str | None) -> Path | None:
    """Return the mirror that is in force: ``data_dir``, else the environment variable, else None (the Hub)."""
    by_environment = os.environ.get(DATA_DIR)
    if data_dir and by_environment and Path(data_dir).resolve() != Path(by_environment).resolve():
        _warn_once(f"two mirrors are given: data_dir={data_dir} is read, {DATA_DIR}={by_environment} is not")
    folder = data_dir or by_environment
    return Path(folder) if folder else None


def split_files(mirror: Path, hub_path: str, hub_name: str, split: str) -> list[Path]:
    """Return the files of a mirror that hold a split; a sound mirror has one."""
    folders = _folders(mirror, hub_path, hub_name)
    return [path for folder in folders for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]


def find_split(mirror: Path, hub_path: str, hub_name: str, split: str) -> Path:
    """Return the file of a split.

    Raises:
        DataError: The mirror lacks it, or has it twice; names what was looked for and what is there.
    """
    if not mirror.is_dir():
        raise DataError(f"data_dir={mirror} is not a folder; expected {mirror}/{hub_path}/{hub_name}/{split}.jsonl")
    found = split_files(mirror, hub_path, hub_name, split)
    if len(found) > 1:
        raise DataError(
            f"split {split} of {hub_path} ({hub_name}) is there more than once: found "
            f"{' and '.join(map(str, found))}; remove all but one"
        )
    if found:
        return found[0]
    folders = _folders(mirror, hub_path, hub_name)
    here = [folder for folder in folders if folder.is_dir()]
    if here:
        expected = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        raise DataError(f"{' and '.join(map(str, here))}: expected one of {expected}, found none")
    siblings = sorted({path.name for folder in folders for path in folder.parent.glob("*") if path.is_dir()})
    has = f"; it has {', '.join(siblings)}" if siblings else ""
    raise DataError(
        f"no {hub_path} ({hub_name}) in data_dir={mirror}: "
        f"looked for {' and '.join(map(str, folders))}{did_you_mean(hub_name, siblings)}{has}"
    )


def _folders(mirror: Path, hub_path: str, hub_name: str) -> list[Path]:
    return [mirror / place.path / place.config for place in source_of(hub_path).places(hub_path, hub_name)]


def mirrored_members(members: list[Any], registry: Mapping[str, Any], data_dir: str | None, name: str) -> list[Any]:
    """Return those tasks of a group or tag whose dataset the mirror in force has; all of them where it has none.

    A mirror often holds a few of a benchmark's languages. The group then runs on those, and a warning names the rest.

    Args:
        members: Names of tasks, or dicts with further settings, as in a group's YAML.
        registry: The harness's index of tasks, whose entries hold the tasks' configurations.
        data_dir: As in :func:`mirror_folder`.
        name: The group's or tag's, for the warning.
    """
    mirror = mirror_folder(data_dir)
    if mirror is None:
        return members
    missing = [member for member in members if not _is_mirrored(member, registry, mirror)]
    if not missing or len(missing) == len(members):
        return members
    _logger.warning("data_dir=%s lacks the data of %s: left out of %s", mirror, ", ".join(map(str, missing)), name)
    return [member for member in members if member not in missing]


def configs_of(dataset_kwargs: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the datasets that a task reads, path and config, by the ``dataset_kwargs`` of its file.

    There ``hub_path`` names the dataset and ``hub_name`` its config, or ``hub_names`` several.
    """
    source = dataset_kwargs or {}
    if "hub_path" not in source:
        return []
    return [(source["hub_path"], name) for name in source.get("hub_names") or [source["hub_name"]]]


def _is_mirrored(member: Any, registry: Mapping[str, Any], mirror: Path) -> bool:
    entry = registry.get(member) if isinstance(member, str) else None
    wanted = configs_of((getattr(entry, "cfg", None) or {}).get("dataset_kwargs"))
    return all(any(folder.is_dir() for folder in _folders(mirror, *one)) for one in wanted)


@cache
def _warn_once(message: str) -> None:
    _logger.warning(message)

"""Making a mirror of the datasets that tasks need, and verifying one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.data.checks import checked
from lm_eval_amplify.data.files import read_rows, write_rows
from lm_eval_amplify.data.hub import read_hub
from lm_eval_amplify.data.mirror import SUFFIXES, configs_of, find_split, split_files
from lm_eval_amplify.data.sources import DEVTEST, FLORES_PLUS, flores_plus_code, source_of
from lm_eval_amplify.errors import DataError, did_you_mean
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.resources import tasks_folder


class Wanted(NamedTuple):
    """A config of a dataset, and those of its splits that tasks use."""

    hub_path: str
    hub_name: str
    splits: tuple[str, ...]


class Report(NamedTuple):
    """What was found of one split, or done about it."""

    place: str
    """File, or dataset where there is none."""
    rows: int | None
    """How many, or None where they cannot be read."""
    said: tuple[str, ...]
    """What is worth a warning; of a faulty one, what is wrong with it."""
    is_faulty: bool = False


def wanted_data(names: Sequence[str], flores: Sequence[str] = ()) -> list[Wanted]:
    """Return the datasets of tasks, each config once, in the tasks' order.

    Args:
        names: Tasks of ours, groups, tags, or patterns such as ``amplify_xcopa_*``.
        flores: Further languages of FLORES, whose devtest sentences are wanted.

    Raises:
        DataError: A name is unknown.
        LanguageError: A language is unknown.
    """
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=str(tasks_folder()), include_defaults=False).task_index
    splits: dict[tuple[str, str], dict[str, None]] = {}
    for task in [task for name in names for task in _tasks(name, index)]:
        kwargs = (index[task].cfg or {}).get("dataset_kwargs") or {}
        for dataset in configs_of(kwargs):
            splits.setdefault(dataset, {}).update(dict.fromkeys(kwargs["splits"]))
    for language in flores:
        splits.setdefault((FLORES_PLUS, flores_plus_code(canonical_language(language))), {}).setdefault(DEVTEST)
    return [Wanted(*dataset, tuple(own)) for dataset, own in splits.items()]


def _tasks(name: str, index: Any) -> list[str]:
    entry = index.get(name)
    if entry is None:
        found = [task for task in index if fnmatch(task, name)]
        if not found:
            raise DataError(f"unknown task, group or tag {name!r}{did_you_mean(name, index)}")
        return [task for one in found for task in _tasks(one, index)]
    members = entry.cfg.get("task") if entry.cfg else sorted(entry.tags)
    if isinstance(members, list):
        return [task for member in members for task in _tasks(member, index)]
    return [name]


def mirror_data(wanted: Iterable[Wanted], out: Path) -> Iterator[Report]:
    """Write what a mirror lacks, from the Hub; files appear whole or not at all, and those there are kept.

    Yields:
        A report of each split; a faulty one where it could not be had.

    Raises:
        DataError: The folder cannot be written.
    """
    for one in wanted:
        source = source_of(one.hub_path)
        lacking = [split for split in one.splits if not split_files(out, one.hub_path, one.hub_name, split)]
        for split in one.splits:
            if split not in lacking:
                yield _report(out, one, split)
        if not lacking:
            continue
        try:
            found = read_hub(one.hub_path, one.hub_name, lacking, source)
            for split, rows in found.items():
                place = f"{one.hub_path} ({one.hub_name}), split {split}"
                checked(rows, source, config=one.hub_name, split=split, place=place)
        except DataError as error:
            yield Report(f"{one.hub_path} ({one.hub_name})", None, (str(error),), is_faulty=True)
            continue
        for split, rows in found.items():
            write_rows(rows, out / one.hub_path / one.hub_name / f"{split}.jsonl")
            yield _report(out, one, split)


def check_mirror(folder: Path, wanted: Sequence[Wanted] | None = None) -> Iterator[Report]:
    """Read every split of a mirror, or those wanted, and say what is wrong with them.

    Args:
        folder: The mirror.
        wanted: What must be there; by default all that is there is checked.

    Yields:
        A report of each split.

    Raises:
        DataError: The folder is none, or holds no dataset.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    if wanted is None:
        found = sorted(_all_splits(folder))
        if not found:
            raise DataError(f"no dataset in {folder}: expected {folder}/<org>/<name>/<config>/<split>.jsonl")
        wanted = [Wanted(hub_path, hub_name, (split,)) for hub_path, hub_name, split in found]
    for one in wanted:
        for split in one.splits:
            yield _report(folder, one, split)


def _all_splits(folder: Path) -> set[tuple[str, str, str]]:
    return {
        (f"{path.parts[-4]}/{path.parts[-3]}", path.parts[-2], path.name.removesuffix(suffix))
        for suffix in SUFFIXES
        for path in folder.glob(f"*/*/*/*{suffix}")
    }


def _report(folder: Path, one: Wanted, split: str) -> Report:
    """Read a split of a mirror and say what is wrong with it."""
    place = f"{one.hub_path}/{one.hub_name}/{split}"
    try:
        path = find_split(folder, one.hub_path, one.hub_name, split)
        place = str(path)
        rows = read_rows(path)
        _, warnings = checked(rows, source_of(one.hub_path), config=one.hub_name, split=split, place=place)
    except DataError as error:
        return Report(place, None, (str(error),), is_faulty=True)
    return Report(place, len(rows), tuple(warnings))

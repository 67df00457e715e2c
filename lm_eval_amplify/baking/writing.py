"""Writes a changed checkpoint beside the original, file by file and tensor by tensor, whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from lm_eval_amplify.baking.changes import Changes
from lm_eval_amplify.baking.checkpoint import CARD, CONFIG, INDEX, Checkpoint
from lm_eval_amplify.baking.tensor_files import Made, Stored, sizes, write_tensors
from lm_eval_amplify.baking.tokenizer import keep_tokenizer
from lm_eval_amplify.errors import CheckpointError
from lm_eval_amplify.whole_files import whole_folder

Report: TypeAlias = Callable[[str, int, int], None]
"""Gets the name of a stage, how many bytes are written, and how many there are."""

_Shards: TypeAlias = Mapping[str, Mapping[str, Stored | Made]]


def write_checkpoint(checkpoint: Checkpoint, changes: Changes, card: str, out: Path, report: Report) -> None:
    """Write a checkpoint with changes.

    Args:
        checkpoint: The original.
        changes: What is different.
        card: Text of its model card.
        out: Folder to make.
        report: Is told how far it is.

    Raises:
        CheckpointError: It cannot be written, or the original not be read; there is no folder then.
    """
    shards = _shards(checkpoint, changes)
    total, done = sum(sizes(shard.values()) for shard in shards.values()), 0

    def count(number: int) -> None:
        nonlocal done
        done += number
        report("bake", done, total)

    try:
        check_space(out.parent, total)
        with whole_folder(out) as folder:
            _write_beside(checkpoint, changes, card, folder)
            if checkpoint.index is not None:
                _write_json(folder / INDEX, _index(checkpoint.index, shards, total))
            for file, tensors in shards.items():
                write_tensors(folder / file, tensors, count)
    except OSError as error:
        raise CheckpointError(f"cannot bake into {out}: {error.strerror or error}") from error


def check_space(folder: Path, needed: int) -> None:
    """Check that a disk has room for a number of bytes.

    Raises:
        OSError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        said = f"{os.strerror(errno.ENOSPC)}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB free"
        raise OSError(errno.ENOSPC, said)


def _write_beside(checkpoint: Checkpoint, changes: Changes, card: str, folder: Path) -> None:
    """Write what is not weights."""
    for name in checkpoint.other_files:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, folder / name)
    (folder / CARD).write_text(card, encoding="utf-8")
    if changes.config is None:
        shutil.copyfile(checkpoint.folder / CONFIG, folder / CONFIG)
        return
    _write_json(folder / CONFIG, changes.config)
    if changes.config["model_type"] != checkpoint.config.get("model_type"):
        keep_tokenizer(checkpoint.folder, folder)


def _shards(checkpoint: Checkpoint, changes: Changes) -> _Shards:
    """The tensors of each new file."""
    beside: dict[str, dict[str, Made]] = {}
    for name, new in changes.tensors.items():
        beside.setdefault(new.beside, {})[name] = new.tensor
    shards: dict[str, dict[str, Stored | Made]] = {}
    for file, tensors in checkpoint.shards.items():
        shards[file] = {}
        for own, tensor in tensors.items():
            name = changes.names.get(own, own)
            if name not in changes.tensors:
                shards[file][name] = tensor
            shards[file].update(beside.get(own, {}))
    return shards


def _index(old: Mapping[str, Any], shards: _Shards, total: int) -> dict[str, Any]:
    metadata = {**old.get("metadata", {}), "total_size": total}
    if "total_parameters" in metadata:
        tensors = [tensor for shard in shards.values() for tensor in shard.values()]
        metadata["total_parameters"] = sum(math.prod(tensor.shape) for tensor in tensors)
    return {"metadata": metadata, "weight_map": {name: file for file, shard in shards.items() for name in shard}}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

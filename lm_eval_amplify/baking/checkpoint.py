"""A model as files: where it lies, what is in it, and what of it can be baked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lm_eval_amplify.baking.tensor_files import Stored, stored_tensors
from lm_eval_amplify.errors import CheckpointError
from lm_eval_amplify.hub_files import download_model
from lm_eval_amplify.resources import embedded_model

CONFIG, CARD = "config.json", "README.md"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".ot")
_TEMPLATES = "additional_chat_templates"
_SAMPLE = 4096


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model.

    Attributes:
        name: What the user called it.
        folder: Where it lies.
        config: The content of ``config.json``.
        shards: The tensors of each file by name; the file's name is the key.
        index: The content of the index, where there is one.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, Mapping[str, Stored]]
    index: Mapping[str, Any] | None

    @cached_property
    def tensors(self) -> dict[str, Stored]:
        """All tensors by name."""
        return {name: tensor for shard in self.shards.values() for name, tensor in shard.items()}

    @property
    def other_files(self) -> list[str]:
        """Paths from the folder of what goes with the weights: tokenizer, chat templates, licence."""
        ours = {CONFIG, CARD, INDEX}
        files = [path for path in [*self.folder.iterdir(), *(self.folder / _TEMPLATES).glob("*")] if path.is_file()]
        names = [path.relative_to(self.folder).as_posix() for path in files]
        return sorted(
            name
            for name in names
            if name not in ours and not name.startswith(".") and not name.endswith((*_OTHER_WEIGHTS, ".index.json"))
        )

    @cached_property
    def identity(self) -> str:
        """What identifies the weights: ``commit:...`` of the Hub, else ``sampled:...``.

        The latter is a SHA-256 over every tensor's name, type, shape and first bytes: that of all bytes takes longer
        than baking.
        """
        if self.folder.parent.name == "snapshots" and _COMMIT.fullmatch(self.folder.name):
            return f"commit:{self.folder.name}"
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            with tensor.path.open("rb") as file:
                file.seek(tensor.start)
                digest.update(file.read(min(_SAMPLE, tensor.size)))
        return f"sampled:{digest.hexdigest()}"


def open_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find a model and read what is in it, but no weight.

    Args:
        name: A folder, ``org/repo`` of the Hub, or ``babel``.
        revision: Branch, tag or commit on the Hub.

    Raises:
        CheckpointError: There is none, or it cannot be read, has no safetensors weights, or is quantised.
    """
    folder = Path(embedded_model(name))
    if not folder.is_dir():
        if not _REPOSITORY.fullmatch(name):
            raise CheckpointError(f"no model {name!r}: expected a folder, or org/repo on the Hub")
        folder = download_model(name, revision, CheckpointError)
    elif revision is not None:
        raise CheckpointError(f"revision={revision} with the folder {name!r}: only a model of the Hub has revisions")
    config = _read_json(folder / CONFIG)
    if config.get("quantization_config") is not None:
        method = config["quantization_config"].get("quant_method", "quantised")
        raise CheckpointError(
            f"{name} is quantised ({method}), its weights cannot be changed exactly: bake the original"
        )
    index = _read_json(folder / INDEX) if (folder / INDEX).is_file() and not (folder / SINGLE).is_file() else None
    files = [SINGLE] if index is None else sorted(set(index["weight_map"].values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing and index is None:
        raise CheckpointError(_no_weights(name, folder))
    if missing:
        raise CheckpointError(f"{folder}: {INDEX} names {missing[0]}, which is not there: get the model again")
    if any(Path(file).name != file for file in files):
        raise CheckpointError(f"{folder}: {INDEX} names files outside the folder")
    shards = {file: stored_tensors(folder / file) for file in files}
    lost = [name for name, file in index["weight_map"].items() if name not in shards[file]] if index is not None else []
    if lost:
        raise CheckpointError(f"{folder}: {INDEX} names {lost[0]}, which its file does not have: get the model again")
    return Checkpoint(name, folder, config, shards, index)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(f"cannot read {path}: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"cannot read {path}: expected a JSON object")
    return content


def _no_weights(name: str, folder: Path) -> str:
    others = sorted(path.name for path in folder.iterdir() if path.suffix in _OTHER_WEIGHTS)
    if not others:
        return f"{name} has no weights: expected {SINGLE} or {INDEX} in {folder}"
    return (
        f"{name} has its weights in {others[0]}, expected {SINGLE} or {INDEX}: load it with transformers and write it "
        "again with save_pretrained(FOLDER), then bake FOLDER"
    )

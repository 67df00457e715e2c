"""What a run has found of each language, kept in a folder, so that an interrupted run goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.whole_files import whole_file

Found: TypeAlias = dict[str, torch.Tensor]
"""Numbers by name, of one language."""

_KEY = "of"


@dataclass(frozen=True)
class Keeping:
    """A folder of what was found, ``<language>.<kind>.pt``, each with a key of what it was found on.

    A file is a dict of tensors that ``torch.load(weights_only=True)`` reads. ``<language>.counts.pt`` has ``n`` and
    ``over_zero`` ``[num_layers, d_ff]``, as the activation-count files of LAPE's reference implementation have.

    Attributes:
        folder: Made when something is kept.
        identity: What identifies the model, its precision included.
    """

    folder: Path
    identity: str

    def get(self, kind: str, language: str, key: str) -> Found | None:
        """Return what was kept under this key; None if nothing was, or it cannot be read."""
        try:
            found = torch.load(self._path(kind, language), weights_only=True, map_location="cpu")
        except Exception:  # noqa: BLE001  # missing, or cut off in any way: it is found again
            return None
        if not isinstance(found, dict) or found.pop(_KEY, None) != self._hash(key):
            return None
        return {name: torch.as_tensor(value) for name, value in found.items()}

    def put(self, kind: str, language: str, key: str, found: Mapping[str, torch.Tensor]) -> None:
        """Keep something, whole or not at all.

        Raises:
            DataError: It cannot be written.
        """
        path = self._path(kind, language)
        # Numbers alone as such: the reference makes tensors of lists of them.
        values = {name: value.item() if value.ndim == 0 else value for name, value in found.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                torch.save({**values, _KEY: self._hash(key)}, file)
        except (OSError, RuntimeError) as error:  # torch's writer has errors of its own
            raise DataError(f"cannot keep what was found of {language} in {path}: {error}") from error

    def clear(self) -> None:
        """Remove what was kept, and the folder if nothing else is in it."""
        for path in self.folder.glob("*.*.pt"):
            path.unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, kind: str, language: str) -> Path:
        return self.folder / f"{language}.{kind}.pt"

    def _hash(self, key: str) -> str:
        return hashlib.sha256(f"{self.identity}\n{key}".encode()).hexdigest()

"""How a number came to be: the parts of a result's signature."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.neurons.serialize import to_bytes

_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
_SHORT = 12


def package_version() -> str:
    """Return the installed version of this package."""
    return version("lm-eval-amplify")


def neuron_file_hash(neurons: NeuronFile) -> str:
    """Return the SHA-256 of a neuron file: of the bytes it was read from, else of those that it would be written as."""
    return neurons.sha256 or hashlib.sha256(to_bytes(neurons)).hexdigest()


def model_hash(model: nn.Module, pretrained: str | None) -> str:
    """Return what identifies a model's weights: ``commit:...`` from the Hub, else ``sha256:...``.

    Args:
        model: The model.
        pretrained: What it was loaded from, if it is as it was loaded: a folder's weight files are hashed. None: the
            tensors in memory are, which takes longer.
    """
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    if commit and pretrained is not None:
        return f"commit:{commit}"
    if pretrained is not None and Path(pretrained).is_dir():
        files = sorted(path for pattern in _WEIGHTS for path in Path(pretrained).glob(pattern))
        if files:
            return f"sha256:{_hash_of_parts(_file_digest(path) for path in files)}"
    return f"sha256:{_hash_of_parts(_tensor_digests(model))}"


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of what a tokenizer does: its backend's state, or its vocabulary where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(state.encode()).hexdigest()


def signature(parts: dict[str, str]) -> str:
    """Join the parts of a signature into the one string that stands beside a number; long hashes are cut.

    >>> signature({"model": "sha256:0123456789abcdef", "op": "set"})
    'model:sha256:0123456789ab|op:set'
    """
    return "|".join(f"{name}:{_short(value)}" for name, value in parts.items())


def _short(value: str) -> str:
    kind, separator, digest = value.rpartition(":")
    return f"{kind}{separator}{digest[:_SHORT]}" if kind in ("commit", "sha256", "sampled") else value


def _hash_of_parts(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256(path.name.encode())
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.digest()


def _tensor_digests(model: nn.Module) -> Iterable[bytes]:
    for name, tensor in model.state_dict().items():
        digest = hashlib.sha256(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        if not tensor.is_meta:
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        yield digest.digest()

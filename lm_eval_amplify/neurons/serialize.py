"""The bytes of a neuron file: safetensors, the same content always giving the same bytes.

neuron_masks/README.md is the format's specification.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.whole_files import whole_file

FORMAT = "lm-eval-amplify/neurons"
VERSION = "1"

_HEADER_LENGTH = struct.Struct("<Q")
_DTYPES = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
_STATISTIC = "stat."


def to_bytes(content: NeuronFile) -> bytes:
    """Return the file's bytes; equal content gives equal bytes."""
    tensors = _tensors(content)
    manifest = _canonical_json(content.manifest.model_dump(mode="json"))
    metadata = {"format": FORMAT, "version": VERSION, "manifest": manifest}
    metadata["checksum"] = _checksum(manifest, tensors)
    written = safetensors.numpy.save(tensors, metadata)
    # safetensors writes its metadata in the order of a hash map, which differs from run to run.
    (length,) = _HEADER_LENGTH.unpack_from(written)
    body = written[_HEADER_LENGTH.size + length :]
    header = _canonical_json(json.loads(written[_HEADER_LENGTH.size : _HEADER_LENGTH.size + length])).encode()
    header += b" " * (-len(header) % 8)
    return _HEADER_LENGTH.pack(len(header)) + header + body


def from_bytes(data: bytes) -> NeuronFile:
    """Parse and validate a neuron file's bytes.

    Raises:
        NeuronFileError: The bytes are not a neuron file, of another version, damaged, or inconsistent.
    """
    tensors, metadata = _parse_safetensors(data)
    found = metadata.get("format")
    if found != FORMAT:
        raise NeuronFileError(f"metadata field 'format' is {found!r}, expected {FORMAT!r}: not a neuron file")
    if metadata.get("version") != VERSION:
        raise NeuronFileError(
            f"metadata field 'version' is {metadata.get('version')!r}, expected {VERSION!r}: "
            "read it with the version of lm-eval-amplify that wrote it"
        )
    manifest_text = metadata.get("manifest", "")
    expected = metadata.get("checksum")
    if expected is not None and expected != _checksum(manifest_text, tensors):
        raise NeuronFileError("the checksum does not match the content: the file is damaged, get it again")
    return NeuronFile(_parse_manifest(manifest_text), _group(tensors), hashlib.sha256(data).hexdigest())


def read_neurons(path: str | os.PathLike[str]) -> NeuronFile:
    """Read and validate a neuron file.

    Raises:
        NeuronFileError: The file cannot be read or is not a valid neuron file; the message begins with its path.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise NeuronFileError(f"cannot read neuron file {os.fspath(path)}: {error.strerror or error}") from error
    try:
        return from_bytes(data)
    except NeuronFileError as error:
        raise NeuronFileError(f"neuron file {os.fspath(path)}: {error}") from error


def write_neurons(content: NeuronFile, path: str | os.PathLike[str]) -> None:
    """Write a neuron file whole or not at all: under a temporary name beside it, then renamed.

    Raises:
        NeuronFileError: The file cannot be written.
    """
    data = to_bytes(content)
    try:
        with whole_file(path) as file:
            file.write(data)
    except OSError as error:
        raise NeuronFileError(f"cannot write neuron file {os.fspath(path)}: {error.strerror or error}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check before a long run that a neuron file can be written; an old file there stays as it is.

    Raises:
        NeuronFileError: It cannot.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise NeuronFileError(f"cannot write neuron file {path}: {error.strerror or error}") from error


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _checksum(manifest: str, tensors: dict[str, NDArray[Any]]) -> str:
    """SHA-256 over the manifest and every tensor's name, type and values: what a flipped bit would change."""
    digest = hashlib.sha256(manifest.encode())
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"\n{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _tensors(content: NeuronFile) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {}
    for language, neurons in content.neurons.items():
        tensors[f"{language}/layer"] = neurons.layer
        tensors[f"{language}/index"] = neurons.index
        if neurons.expert is not None:
            tensors[f"{language}/expert"] = neurons.expert
        for name, values in neurons.statistics.items():
            tensors[f"{language}/{_STATISTIC}{name}"] = values
    return tensors


def _parse_safetensors(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        (length,) = _HEADER_LENGTH.unpack_from(data)
        metadata = json.loads(data[_HEADER_LENGTH.size : _HEADER_LENGTH.size + length]).get("__metadata__", {})
    except Exception as error:  # noqa: BLE001  # the library's error type is not public; whatever it is, this is no safetensors file
        if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise NeuronFileError(
                "this is a pickle (PyTorch) file, expected safetensors: "
                "convert a reference mask with `lm-eval-amplify neurons import`"
            ) from None
        raise NeuronFileError(
            f"not a safetensors file, or a truncated or damaged one ({error}; {len(data)} bytes)"
        ) from None
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise NeuronFileError(f"tensor {name!r} is of type {entry['dtype']}, expected I32 or F32")
        tensors[name] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def _parse_manifest(text: str) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise NeuronFileError(f"manifest field '{where}': {first['msg']}, found {first['input']!r:.80}") from None


def _group(tensors: dict[str, NDArray[Any]]) -> dict[str, LanguageNeurons]:
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for full_name, values in tensors.items():
        language, _, name = full_name.rpartition("/")
        if name not in ("layer", "index", "expert") and not name.startswith(_STATISTIC):
            raise NeuronFileError(
                f"tensor {full_name!r}: expected names <language>/layer, /index, /expert or /stat.<name>"
            )
        parts.setdefault(language, {})[name] = values
    neurons = {}
    for language, found in parts.items():
        for required in ("layer", "index"):
            if required not in found:
                raise NeuronFileError(f"tensor '{language}/{required}' is missing")
        statistics = {n.removeprefix(_STATISTIC): v for n, v in sorted(found.items()) if n.startswith(_STATISTIC)}
        neurons[language] = LanguageNeurons(found["layer"], found["index"], statistics, found.get("expert"))
    return neurons

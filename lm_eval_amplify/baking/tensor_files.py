"""Safetensors files tensor by tensor: what is left as it was is copied by the kernel, never held in memory.

The library checks a file; where its tensors lie is read from its header, which the library does not tell.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import torch
from safetensors import safe_open

from lm_eval_amplify.errors import CheckpointError

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
"""The types of tensors that can be changed."""

_LENGTH = struct.Struct("<Q")
_BLOCK = 1 << 26
_NOT_BY_THE_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)
"""What the kernel says to copying between these two files that it might have said of reading and writing too."""

Report: TypeAlias = Callable[[int], None]
"""Gets the number of bytes that were written."""


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    dtype: str
    """As the format calls it: ``BF16``."""
    shape: tuple[int, ...]
    start: int
    """Of its first byte, from the file's."""
    size: int
    """In bytes."""

    def read(self) -> torch.Tensor:
        """Return the tensor, of one of the types :data:`FLOATS`, in memory of its own."""
        tensor = torch.empty(self.shape, dtype=FLOATS[self.dtype])
        left = _bytes_of(tensor)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            while left:
                number = file.readinto(left)
                if not number:
                    raise _ended(self.path)
                left = left[number:]
        return tensor


class Made(NamedTuple):
    """A tensor that is yet to be computed."""

    dtype: str
    shape: tuple[int, ...]
    compute: Callable[[], torch.Tensor]


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by name, in the order in which they lie there.

    Raises:
        CheckpointError: It cannot be read, or is none, or is cut off.
    """
    try:
        with safe_open(path, "pt") as _:
            pass
        with path.open("rb") as file:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header: dict[str, Any] = json.loads(file.read(length))
    except Exception as error:  # the library's error type is not public
        raise CheckpointError(f"cannot read {path}: {str(error).partition(chr(10))[0]}") from error
    header.pop("__metadata__", None)
    data = _LENGTH.size + length
    found = {
        name: Stored(path, tensor["dtype"], tuple(tensor["shape"]), data + start, end - start)
        for name, tensor in header.items()
        for start, end in [tensor["data_offsets"]]
    }
    return dict(sorted(found.items(), key=lambda item: item[1].start))


def write_tensors(path: Path, tensors: Mapping[str, Stored | Made], report: Report) -> None:
    """Write a safetensors file; the same tensors always give the same bytes.

    Raises:
        OSError: It cannot be written, or what it takes tensors from cannot be read.
    """
    # Wider types first, as the library has it, so that every tensor begins at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda item: -_width(item[1]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + _size(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb", buffering=0) as file:
        _write(file, memoryview(_LENGTH.pack(len(text)) + text))
        for _, tensor in ordered:
            if isinstance(tensor, Stored):
                _copy(tensor, file)
            else:
                _write(file, _bytes_of(_computed(tensor)))
            report(_size(tensor))


def sizes(tensors: Iterable[Stored | Made]) -> int:
    """Return how many bytes the tensors have."""
    return sum(map(_size, tensors))


def _computed(tensor: Made) -> torch.Tensor:
    computed = tensor.compute()
    if computed.shape != tensor.shape or computed.dtype != FLOATS[tensor.dtype]:
        raise RuntimeError(f"computed {computed.dtype}{list(computed.shape)}, announced {tensor}")
    return computed.contiguous()


def _size(tensor: Stored | Made) -> int:
    if isinstance(tensor, Stored):
        return tensor.size
    return torch.Size(tensor.shape).numel() * FLOATS[tensor.dtype].itemsize


def _width(tensor: Stored | Made) -> int:
    """Bytes of a number; of a type that packs several into a byte, 0."""
    return _size(tensor) // max(torch.Size(tensor.shape).numel(), 1)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]  # an array is a buffer


def _write(file: IO[bytes], left: memoryview) -> None:
    while left:  # a call writes at most 2 GB
        left = left[file.write(left) :]


def _copy(tensor: Stored, file: IO[bytes]) -> None:
    """Copy a tensor's bytes to where a file stands."""
    with tensor.path.open("rb", buffering=0) as source:
        done = _copy_by_kernel(source, tensor.start, tensor.size, file)
        if done == tensor.size:
            return
        source.seek(tensor.start + done)
        block = memoryview(bytearray(min(tensor.size - done, _BLOCK)))
        while done < tensor.size:
            number = source.readinto(block[: min(tensor.size - done, _BLOCK)])
            if not number:
                raise _ended(tensor.path)
            _write(file, block[:number])
            done += number


def _copy_by_kernel(source: IO[bytes], start: int, size: int, file: IO[bytes]) -> int:
    """Copy as much as the kernel can between these two files, and return how much that was."""
    done = 0
    if not hasattr(os, "copy_file_range"):  # on Linux only
        return done
    while done < size:
        try:
            number = os.copy_file_range(source.fileno(), file.fileno(), min(size - done, _BLOCK), start + done)
        except OSError as error:
            if error.errno not in _NOT_BY_THE_KERNEL:
                raise
            return done
        if not number:
            return done
        done += number
    return done


def _ended(path: Path) -> OSError:
    return OSError(errno.EIO, "it ends before its last tensor", str(path))

"""A study's folder as it is written: by one process, units whole or not at all, what does not count moved aside."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.errors import StudyError
from lm_eval_amplify.results.files import ResultsFile, read_results
from lm_eval_amplify.sweep.store import FORMAT, RECORD, RESULTS, UNIT, VERSION, Stage, Unit, fault_of, read_record
from lm_eval_amplify.whole_files import whole_file, whole_folder

_LOCK = ".lock"
_NUMBERED = re.compile(r"(\d+)-")
_logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What the harness made of a unit."""

    results: Mapping[str, Any]
    """As it is written."""
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    """By task, as they are written."""


class StudyFolder:
    """A folder that a study is run in.

    Args:
        path: Made when the folder is first held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out of the folder inside the ``with`` block; a process that dies lets go of it.

        Raises:
            StudyError: Another process holds it, or it cannot be written.
        """
        import fcntl

        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("a+")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                raise StudyError(
                    f"{self.path} is held by {holder}: wait until it is done, or give another folder with --out"
                ) from None
            with writing(self.path):
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}")
                lock.flush()
            yield

    def read_record(self) -> dict[str, Any] | None:
        """Return what the folder is of; None for a new one. A damaged record is moved aside.

        Raises:
            StudyError: The folder is of something else.
        """
        path = self.path / RECORD
        if not path.exists():
            others = [one.name for one in self.path.glob("*") if not one.name.startswith(".")]
            if others and "aside" not in others:  # a record that was damaged is there
                raise StudyError(
                    f"{self.path} has no {RECORD} but {', '.join(sorted(others)[:3])}: it is no study's folder; give "
                    "another with --out"
                )
            return None
        try:
            return read_record(self.path)
        except StudyError as error:
            _logger.warning("%s: moved aside", error)
            self._set_aside(path)
            return None

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write what the folder is of.

        Raises:
            StudyError: It cannot be written.
        """
        content = {"format": FORMAT, "version": VERSION, **record}
        with writing(self.path / RECORD), whole_file(self.path / RECORD) as file:
            file.write(_json(content))

    def is_finished(self, unit: Unit, fingerprint: str) -> bool:
        """Return whether a unit is there and whole; what is damaged, or of something else, is moved aside and named.

        Args:
            unit: The unit.
            fingerprint: Of what it should be of.

        Raises:
            StudyError: It cannot be moved.
        """
        folder = self.path / unit.path
        if not folder.exists():
            return False
        fault = fault_of(folder, fingerprint)
        if fault is None:
            return True
        _logger.warning("%s: %s; moved aside, it runs again", unit.path, fault)
        self._set_aside(folder)
        return False

    def put(
        self,
        unit: Unit,
        fingerprint: str,
        parts: Mapping[str, Any],
        outcome: Outcome,
        default: Callable[[Any], Any] | None = None,
    ) -> None:
        """Write a unit, whole or not at all.

        Args:
            unit: The unit.
            fingerprint: Of what it is of.
            parts: The same for a reader.
            outcome: What is written.
            default: Makes something that JSON has of what it has not.

        Raises:
            StudyError: It cannot be written.
        """
        files = {f"samples_{task}.jsonl": _lines(samples, default) for task, samples in outcome.samples.items()}
        files[RESULTS] = _json(outcome.results, default)
        hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
        files[UNIT] = _json({**unit.as_dict(), "fingerprint": fingerprint, "of": parts, "files": hashes})
        target = self.path / unit.path
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with whole_folder(target) as folder:
                for name, content in files.items():
                    with (folder / name).open("wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())  # the folder's name must not outlive a power cut that its files do not

    def clear_temporaries(self) -> None:
        """Remove what a killed process was writing."""
        import shutil

        for stage in ("sweep", "then"):
            for folder in self.path.glob(f"{stage}/*/.*"):
                shutil.rmtree(folder, ignore_errors=True)
        for file in self.path.glob(".*.*"):  # `.study.json.x`; the lock has no second part
            file.unlink(missing_ok=True)

    def set_aside_others(self, stage: Stage, units: Sequence[Unit]) -> list[str]:
        """Move aside what a stage has beside these units, and return the paths: the study has changed since.

        Raises:
            StudyError: It cannot be moved.
        """
        known = {unit.path for unit in units}
        others = [
            str(folder.relative_to(self.path))
            for folder in sorted(self.path.glob(f"{stage}/*/*"))
            if folder.is_dir() and str(folder.relative_to(self.path)) not in known
        ]
        for name in others:
            self._set_aside(self.path / name)
        return others

    def results_of(self, unit: Unit) -> ResultsFile:
        """Return a finished unit's results.

        Raises:
            ResultsError: They are damaged.
        """
        return read_results(self.path / unit.path / RESULTS)

    def _set_aside(self, path: Path) -> None:
        """Under another name, by which nobody takes it for results."""
        name = str(path.relative_to(self.path)).replace("/", "--")
        with writing(self.path):
            aside = self.path / "aside"
            aside.mkdir(exist_ok=True)
            numbers = [int(found[1]) for one in aside.iterdir() if (found := _NUMBERED.match(one.name))]
            target = aside / f"{max(numbers, default=-1) + 1}-{name}"
            for results in path.glob("*.json") if path.is_dir() else ():
                results.rename(results.with_name(f"{results.name}.aside"))
            path.rename(target)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a write inside the ``with`` block that fails what is left and what to do.

    Raises:
        StudyError: It failed.
    """
    try:
        yield
    except OSError as error:
        raise StudyError(
            f"cannot write {path}: {error.strerror or error}; what is finished is kept: once there is room and "
            "permission, the same command goes on from there"
        ) from error


def _json(content: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, default=default) + "\n").encode()


def _lines(samples: Sequence[Mapping[str, Any]], default: Callable[[Any], Any] | None) -> bytes:
    return "".join(json.dumps(one, ensure_ascii=False, default=default) + "\n" for one in samples).encode()

"""What a study's folder holds: units of results, and what the study is; read again, finished or not.

::

    study.json                                    what was asked for, every unit of it, what was chosen
    neurons.safetensors, random-<seed>.safetensors    the neurons, and the controls'
    sweep/<task>/<condition>/results.json         a unit as the harness writes it,
                             samples_<task>.jsonl     with its samples,
                             unit.json                and what it is of, with the hashes of both
    then/<task>/<condition>/...                   those of the tasks that come after the choice
    aside/                                        what was damaged, or is of something else by now
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from lm_eval_amplify.errors import ResultsError, StudyError
from lm_eval_amplify.results.files import ResultsFile, read_results
from lm_eval_amplify.sweep.conditions import Condition

Stage: TypeAlias = Literal["sweep", "then"]
FORMAT = "lm-eval-amplify/study"
VERSION = 1
RECORD = "study.json"
UNIT = "unit.json"
RESULTS = "results.json"

_logger = logging.getLogger(__name__)


class Unit(NamedTuple):
    """What is evaluated and written in one go: a task, or a group of tasks, under a condition."""

    stage: Stage
    task: str
    """As the study names it."""
    condition: Condition

    @property
    def path(self) -> str:
        """Its folder in that of the study."""
        return f"{self.stage}/{self.task}/{self.condition.slug}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {"stage": self.stage, "task": self.task, "condition": self.condition.as_dict()}

    @classmethod
    def of_dict(cls, found: Mapping[str, Any]) -> Unit:
        """Return what :meth:`as_dict` made."""
        return cls(found["stage"], found["task"], Condition.of_dict(found["condition"]))


class StoredStudy(NamedTuple):
    """A study's folder as it is read again."""

    path: Path
    record: Mapping[str, Any]
    """The content of study.json."""
    units: Mapping[Unit, ResultsFile]
    """The finished ones, in the order in which they run."""
    missing: Sequence[Unit]
    """Those that are yet to run, or damaged."""


def read_study(path: Path) -> StoredStudy:
    """Read a study's folder, finished or not.

    Raises:
        StudyError: It is no study's folder.
    """
    record = read_record(path)
    units: dict[Unit, ResultsFile] = {}
    missing = []
    for entry in record["units"]:
        unit = Unit.of_dict(entry)
        folder = path / unit.path
        fault = fault_of(folder, entry["fingerprint"]) if folder.exists() else "not there"
        if fault is None:
            try:
                units[unit] = read_results(folder / RESULTS)
            except ResultsError as error:
                fault = str(error)
        if fault is not None:
            missing.append(unit)
            if fault != "not there":
                _logger.warning("%s: %s; left out", folder, fault)
    return StoredStudy(path, record, units, missing)


def digest_of(*parts: Any) -> str:
    """Return a hash by which the same parts are known again."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a folder's study.json.

    Raises:
        StudyError: It is missing, damaged, or something else.
    """
    file = path / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(
            f"{path}: no study's folder: it has no {RECORD}, which `lm-eval-amplify sweep` writes"
        ) from None
    except OSError as error:
        raise StudyError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StudyError(f"{file}: damaged, no valid JSON ({error})") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise StudyError(f"{file}: not a study's record: expected format {FORMAT!r}")
    if record.get("version") != VERSION:
        raise StudyError(f"{file}: version {record.get('version')} of the format, this package reads {VERSION}")
    return record


def fault_of(folder: Path, fingerprint: str) -> str | None:
    """Return why a unit's folder cannot be used; None where it is whole, and of this fingerprint."""
    try:
        unit = json.loads((folder / UNIT).read_text(encoding="utf-8"))
        if unit["fingerprint"] != fingerprint:
            return "of another model, neuron file, task or version than the study's now"
        for name, digest in unit["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                return f"{name} is damaged or half-written"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{UNIT} is damaged or half-written"
    return None

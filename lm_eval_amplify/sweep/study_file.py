"""A study's file: read, with a mistake said by its key, its line and what may be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from lm_eval_amplify.errors import StudyError, did_you_mean
from lm_eval_amplify.resources import recipes_folder
from lm_eval_amplify.sweep.study import Bound, Choose, Controls, Identify, Interventions, Study, TaskRun, Then
from lm_eval_amplify.sweep.yaml_lines import Located, read_yaml


class StudyFile(NamedTuple):
    """A study, and where its entries stand."""

    study: Study
    located: Located

    @property
    def name(self) -> str:
        """The file's, without its suffix."""
        return self.located.path.stem


_OURS = frozenset(
    {"neurons", "language", "operation", "statistic", "factor", "preset", "others_operation", "others_factor"}
    | {"layers", "positions"}
)


def read_study_file(path: Path, changes: Sequence[str] = ()) -> StudyFile:
    """Read and validate a study's file.

    Args:
        path: The file, or the name of one that ships with the package: ``babel``.
        changes: Entries to set instead, ``model.pretrained=gpt2``; the values are YAML.

    Raises:
        StudyError: It is wrong; names the key, the line and what may be there.
    """
    located = read_yaml(_of_package(path))
    if not isinstance(located.content, dict):
        raise StudyError(f"{path}: expected keys such as model, neurons, interventions and tasks")
    content = located.content
    for change in changes:
        _set(content, change)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise _located(located, error) from None
    if "mode" in study.model:
        raise located.error(("model", "mode"), "a study folds where that is exact, and hooks elsewhere: leave it out")
    for name in study.model:
        if name in _OURS:
            where = "neurons" if name == "neurons" else "languages" if name == "language" else "interventions"
            raise located.error(("model", name), f"the study varies it: say it under {where}")
    return StudyFile(study, located)


def _of_package(path: Path) -> Path:
    bundled = {one.stem: one for one in sorted(recipes_folder().glob("*.yaml"))}
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    if path.name not in bundled:
        raise StudyError(
            f"no study {str(path)!r}{did_you_mean(path.name, bundled)}: give a file, or one of {', '.join(bundled)}"
        )
    return bundled[path.name]


def _set(content: dict[str, Any], change: str) -> None:
    import yaml

    place, separator, value = change.partition("=")
    keys = place.split(".")
    if not separator or not all(keys):
        raise StudyError(f"--set {change}: expected KEY=VALUE, such as model.pretrained=gpt2")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise StudyError(f"--set {change}: the value is no valid YAML") from error
    inner = content
    for key in keys[:-1]:
        inner = inner.setdefault(key, {})
        if not isinstance(inner, dict):
            raise StudyError(f"--set {change}: {key} has no keys")
    inner[keys[-1]] = parsed


def _located(located: Located, error: ValidationError) -> StudyError:
    """The first mistake in words."""
    # A misspelt key comes before what is missing because of it.
    first = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
    place = _place(located.content, first["loc"])
    given = first["input"]
    kind = first["type"]
    if kind == "extra_forbidden":
        keys = _keys_at(place[:-1])
        name = str(place[-1])
        return located.error(place, f"unknown key{did_you_mean(name, keys)}: expected {', '.join(keys)}")
    if kind == "missing":
        return located.error(place[:-1], f"the key {place[-1]!r} is missing")
    if kind == "literal_error":
        expected = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        near = did_you_mean(str(given), expected.split(", "))
        return located.error(place, f"{given!r}{near}: expected {expected}")
    if kind == "value_error":
        return located.error(place, str(first["ctx"]["error"]))
    if kind == "model_type":
        return located.error(place, f"{given!r:.60}: expected keys, of {', '.join(_keys_at(place))}")
    message = first["msg"]
    shown = f"{given!r:.60}: " if not isinstance(given, (dict, list)) else ""
    return located.error(place, f"{shown}{message[:1].lower()}{message[1:]}")


def _place(content: Any, loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """The part of pydantic's location that is in the file: unions and lists of one have labels of their own."""
    place: list[str | int] = []
    for number, step in enumerate(loc):
        if isinstance(content, dict):
            if isinstance(step, int):  # of a list of one that stands there without one
                continue
            place.append(step)
            if step not in content:
                break
            content = content[step]
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            place.append(step)
            content = content[step]
        elif not isinstance(content, (dict, list)) or number == len(loc) - 1:
            break
    return tuple(place)


_PARTS: dict[str, type[BaseModel]] = {
    "identify": Identify,
    "interventions": Interventions,
    "controls": Controls,
    "tasks": TaskRun,
    "choose": Choose,
    "then": Then,
    "limit": Bound,
}


def _keys_at(place: Sequence[str | int]) -> list[str]:
    """The keys that there are where a wrong one stands."""
    part = next((_PARTS[step] for step in reversed(place) if isinstance(step, str) and step in _PARTS), Study)
    return list(part.model_fields)

"""YAML with the line of every entry, for errors that say where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lm_eval_amplify.errors import StudyError


class Located(NamedTuple):
    """A YAML file's content, and where each of its entries stands."""

    path: Path
    content: Any
    root: yaml.Node | None

    def line(self, place: Sequence[str | int]) -> int:
        """Return the line, from 1, of the entry at a place (keys and numbers from the top), or of what it is in."""
        node, line = self.root, 1
        for step in place:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def error(self, place: Sequence[str | int], message: str) -> StudyError:
        """Return an error that names file, line and entry."""
        named = dotted(place)
        return StudyError(f"{self.path}, line {self.line(place)}{f', {named}' if named else ''}: {message}")


def read_yaml(path: Path) -> Located:
    """Read a YAML file.

    Raises:
        StudyError: It cannot be read, is no YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 ({error})") from error
    except ValueError as error:  # a date that there is not
        raise StudyError(f"{path}: no valid YAML: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise StudyError(f"{path}{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from error
    located = Located(path, content, root)
    _refuse_twice(located, root, ())
    return located


def dotted(place: Sequence[str | int]) -> str:
    """Return a place as a reader writes it.

    >>> dotted(("interventions", 0, "factor"))
    'interventions[0].factor'
    """
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def _refuse_twice(located: Located, node: yaml.Node | None, place: tuple[str | int, ...]) -> None:
    """YAML's readers take the later of two equal keys, and say nothing."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise StudyError(
                    f"{located.path}, line {line}, {dotted((*place, key.value))}: the key is there already, in line "
                    f"{seen[key.value]}: leave one out"
                )
            seen[key.value] = line
            _refuse_twice(located, value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _refuse_twice(located, value, (*place, number))

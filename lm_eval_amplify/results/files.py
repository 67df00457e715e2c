"""Files of results as the harness writes them, ours and stock: found, read, and refused where they are damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.errors import ResultsError

_DATED = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
_OF_A_SAMPLE = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
    | {"doc_hash", "prompt_hash", "target_hash"}
)
_AGAIN = "remove it, or run the evaluation again"


class Document(NamedTuple):
    """What a run logged of one document."""

    digest: str
    """Of its content, by which two runs know that they had the same; empty where the run logged none."""
    values: Mapping[str, Any]
    """By metric, as they go into the aggregation over documents: numbers, or pairs of numbers or texts."""


class ResultsFile(NamedTuple):
    """One file of results."""

    path: Path
    content: Mapping[str, Any]
    """As the harness wrote it; ``results`` and ``configs`` are there and objects of objects."""

    def samples_path(self, task: str) -> Path | None:
        """Return the file with a task's samples, or None where none were logged (``--log_samples``).

        It has the date of the results in its name; beside results without a date it has none either.
        """
        dated = _DATED.search(self.path.name)
        name = f"samples_{task}_{dated[1]}.jsonl" if dated else f"samples_{task}.jsonl"
        path = self.path.with_name(name)
        return path if path.is_file() else None

    def samples(self, task: str) -> Iterable[Mapping[str, Any]] | None:
        """Return what was logged of a task, one for each document and filter, or None where nothing was.

        Raises:
            ResultsError: While they are read: they are damaged.
        """
        path = self.samples_path(task)
        if path is not None:
            return _lines(path)
        return (self.content.get("samples") or {}).get(task) or None

    def documents(self, task: str) -> dict[str, dict[int, Document]] | None:
        """Return a task's documents by filter and number, or None where no samples were logged.

        Raises:
            ResultsError: The samples are damaged, or fewer than the results are of.
        """
        path = self.samples_path(task)
        samples = self.samples(task)
        if samples is None:
            return None
        documents: dict[str, dict[int, Document]] = {}
        try:
            for sample in samples:
                documents.setdefault(sample["filter"], {})[sample["doc_id"]] = _document(sample)
        except (KeyError, TypeError) as error:
            raise ResultsError(f"{path or self.path}: not the harness's samples of {task}: {error!r} in one") from error
        expected = ((self.content.get("n-samples") or {}).get(task) or {}).get("effective") or 0
        for name, own in documents.items():
            if len(own) < expected:
                raise ResultsError(
                    f"{path or self.path}: {len(own)} of {expected} documents under filter {name!r}: the file is "
                    f"half-written; {_AGAIN}"
                )
        return documents


def find_results(paths: Iterable[str | Path]) -> list[Path]:
    """Return the files of results that paths name: a file as it is, of a folder all that lie below it.

    In a folder, files of results are those that end as the harness ends them, in a date, or begin with ``results``.

    Raises:
        ResultsError: A path is not there, or a folder has none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            below = sorted(
                file for file in path.rglob("*.json") if _DATED.search(file.name) or file.name.startswith("results")
            )
            if not below:
                raise ResultsError(f"{path}: no results below it; lm_eval writes them with --output_path")
            found |= dict.fromkeys(below)
        elif path.is_file():
            found[path] = None
        else:
            raise ResultsError(f"{path}: there is no such file or folder")
    return list(found)


def read_results(path: Path) -> ResultsFile:
    """Read a file of results.

    Raises:
        ResultsError: It cannot be read, is damaged or half-written, or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ResultsError(f"{path}: damaged or half-written, no valid JSON ({error}); {_AGAIN}") from error
    if not isinstance(content, dict) or "results" not in content:
        raise ResultsError(f"{path}: not results of the harness: they have an entry 'results'")
    for part in (
        "results",
        "configs",
        "versions",
        "n-shot",
        "n-samples",
        "higher_is_better",
        "group_subtasks",
        "config",
    ):
        if not isinstance(content.get(part) or {}, dict):
            raise ResultsError(f"{path}: not results of the harness: {part!r} is no object but {content[part]!r:.40}")
    for task, metrics in content["results"].items():
        if not isinstance(metrics, dict):
            raise ResultsError(f"{path}: not results of the harness: {task!r} has no metrics but {metrics!r:.40}")
    return ResultsFile(path, content)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:  # noqa: PERF203  # it costs nothing
                    raise ResultsError(
                        f"{path}: line {number} is damaged or half-written, no valid JSON ({error}); {_AGAIN}"
                    ) from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: damaged, not UTF-8 ({error}); {_AGAIN}") from error
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error


def _document(sample: Mapping[str, Any]) -> Document:
    names = sample.get("metrics")
    if names is None:
        names = [name for name in sample if name not in _OF_A_SAMPLE]
    return Document(sample.get("doc_hash") or "", {name: sample[name] for name in names})

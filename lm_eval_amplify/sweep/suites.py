"""The harness's tasks of a study: loaded once, their requests built once, ready to be run again and again."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import torch

from lm_eval_amplify.errors import AmplifyError, StudyError, did_you_mean
from lm_eval_amplify.models.requests import LANGUAGE_COLUMN
from lm_eval_amplify.sweep.study import Study, TaskRun
from lm_eval_amplify.task_languages import language_of_task

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Suite:
    """A task, or the tasks of a group or tag, that run together.

    Args:
        name: As the study names it.
        loaded: What the harness's ``TaskManager.load`` returns.
        how: How it is run.
    """

    def __init__(self, name: str, loaded: Mapping[str, Any], how: TaskRun) -> None:
        self.name = name
        self.how = how
        self.tasks: dict[str, Any] = dict(loaded["tasks"])
        self._loaded = loaded

    @property
    def languages(self) -> dict[str, str | None]:
        """Each task's language; None: its name says none."""
        return {name: language_of_task(name) for name in self.tasks}

    @property
    def is_two_sided(self) -> bool:
        """Whether its tasks ask for both sides themselves."""
        return all(_is_two_sided(task) for task in self.tasks.values())

    @property
    def is_mixed(self) -> bool:
        """Whether some of its tasks ask for both sides, and others do not."""
        return not self.is_two_sided and any(_is_two_sided(task) for task in self.tasks.values())

    @property
    def metrics(self) -> set[str]:
        """What its tasks report."""
        return {name for task in self.tasks.values() for name in task.higher_is_better()}

    def higher_is_better(self, metric: str) -> bool:
        """Return a metric's direction."""
        return next(bool(said[metric]) for task in self.tasks.values() if metric in (said := task.higher_is_better()))

    def is_mean(self, metric: str) -> bool:
        """Return whether a metric is the mean of what documents have of it."""
        found = (task.aggregation().get(metric) for task in self.tasks.values())
        return all(one is None or getattr(one, "__name__", "") in ("mean", "nan_mean") for one in found)

    def has_value_for(self, target: str) -> bool:
        """Return whether a metric is of a target language: one that both sides are compared for, or a task's own."""
        if self.is_two_sided:
            return any(target in task.targets for task in self.tasks.values())
        return target in self.languages.values()

    def says(self, name: str) -> bool:
        """Return whether a task's documents say their languages themselves."""
        return LANGUAGE_COLUMN in self.tasks[name].eval_docs[0]

    def within(self, languages: Iterable[str | None]) -> dict[str, Any]:
        """Return what the harness's ``evaluate`` takes: the tasks in some languages, and groups of these alone."""
        chosen = set(languages)
        kept = {name for name, language in self.languages.items() if language in chosen}
        groups = {name: _pruned(group, kept) for name, group in self._loaded["groups"].items()}
        return {
            "tasks": {name: task for name, task in self.tasks.items() if name in kept},
            "groups": {name: group for name, group in groups.items() if len(group)},
        }

    def build(self, study: Study, lm: Any) -> None:
        """Build every task's requests; the harness finds them built from now on.

        Args:
            study: Says how.
            lm: Whose chat template and names go into them.
        """
        limit = self.how.limit or study.limit
        seed_everything(study.seed)
        for task in self.tasks.values():
            task.build_all_requests(
                limit=_documents(task, limit),
                system_instruction=study.system_instruction,
                apply_chat_template=bool(study.apply_chat_template),
                fewshot_as_multiturn=study.fewshot_as_multiturn,
                chat_template=lm.apply_chat_template if study.apply_chat_template else None,
                tokenizer_name=lm.tokenizer_name if study.apply_chat_template else "",
            )
            task.build_all_requests = _are_built

    @cached_property
    def digests(self) -> dict[str, str]:
        """Of each task's requests and documents: equal where everything that is asked is."""
        return {name: _digest(task) for name, task in self.tasks.items()}


def load_suites(
    study: Study,
    runs: Sequence[tuple[tuple[str | int, ...], TaskRun]],
    tasks: TaskIndex,
    bases: Sequence[str],
) -> list[tuple[tuple[str | int, ...], Suite]]:
    """Load tasks; a pattern stands for every name that it fits.

    Args:
        study: Says how they are run.
        runs: Each with its place in the file.
        tasks: Where they are found.
        bases: Languages of the tasks to keep.

    Returns:
        Each with its place in the file.

    Raises:
        StudyError: A task is unknown, is named twice, or has nothing in the languages.
        AmplifyError: What a task of ours raises.
    """
    found: dict[str, tuple[tuple[str | int, ...], Suite]] = {}
    for place, run in runs:
        for name in tasks.matching(run.task, place):
            if name in found:
                raise tasks.error(place, f"task {name} is there twice")
            seed_everything(study.seed)  # some tasks draw their documents
            suite = Suite(name, tasks.load(name, place), run)
            within = suite.within({*bases, None})
            if not within["tasks"] and is_pattern(run.task):
                continue
            if not within["tasks"]:
                have = ", ".join(sorted({language for language in suite.languages.values() if language}))
                raise tasks.error(place, f"{name} has no task in {', '.join(bases)}: it has {have or 'none'}")
            for suite in _apart(Suite(name, within, run)):
                if suite.is_mixed:
                    raise tasks.error(
                        place, f"{name} has tasks that compare both sides themselves, and others: name them apart"
                    )
                if suite.name in found:
                    raise tasks.error(place, f"task {suite.name} is there twice")
                _configure(suite, study)
                found[suite.name] = place, suite
        if not any(where == place for where, _ in found.values()):
            raise tasks.error(place, f"{run.task} has no task in {', '.join(bases)}")
    return list(found.values())


class TaskIndex:
    """The harness's tasks by name.

    Args:
        names: Every task, group, tag or pattern that will be asked for.
        include_path: Further folders of tasks.
        located: The study's file, for errors.
    """

    def __init__(self, names: Sequence[str], include_path: Sequence[str], located: Any) -> None:
        from lm_eval.tasks import TaskManager

        from lm_eval_amplify.resources import tasks_folder

        self._located = located
        ours = [str(tasks_folder()), *include_path]
        # Ours alone, where they are enough: the index of the harness's thousands takes seconds.
        self._manager = TaskManager(include_path=ours, include_defaults=False)
        # A pattern means the same whatever stands beside it.
        in_ours = (not is_pattern(name) or name.startswith("amplify_") for name in names)
        if not all(in_ours) or not all(self._names_like(name) for name in names):
            self._manager = TaskManager(include_path=list(include_path) or None)

    def error(self, place: tuple[str | int, ...], message: str) -> StudyError:
        """Return an error that says where in the file."""
        error: StudyError = self._located.error(place, message)
        return error

    def use_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Hand this metadata to the tasks that are loaded from now on."""
        # The index is what takes long; only the factory knows the metadata.
        self._manager._factory = type(self._manager._factory)(meta=dict(metadata))  # noqa: SLF001

    def matching(self, pattern: str, place: tuple[str | int, ...]) -> list[str]:
        """Return the tasks, groups and tags of a name or pattern.

        Raises:
            StudyError: There is none.
        """
        names = self._names_like(pattern)
        if not names:
            near = did_you_mean(pattern, self._manager.all_tasks)
            raise self.error(place, f"unknown task {pattern!r}{near}: `lm_eval ls tasks` has all names")
        return names

    def load(self, name: str, place: tuple[str | int, ...]) -> dict[str, Any]:
        """Return what the harness loads of a name.

        Raises:
            StudyError: It cannot be loaded; says why.
        """
        try:
            loaded: dict[str, Any] = self._manager.load([name])
        except AmplifyError as error:
            raise self.error(place, f"{name}: {error}") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise self.error(place, f"{name} cannot be loaded: {type(error).__name__}: {reason}") from error
        return loaded

    def _names_like(self, pattern: str) -> list[str]:
        every = self._manager.all_tasks
        if is_pattern(pattern):
            return [name for name in every if fnmatchcase(name, pattern)]
        return [pattern] if pattern in every else []


def _apart(suite: Suite) -> list[Suite]:
    """The tasks of a tag, which are many without a group, one by one."""
    loaded = suite.within(suite.languages.values())
    if loaded["groups"] or len(suite.tasks) == 1:
        return [suite]
    return [Suite(name, {"tasks": {name: task}, "groups": {}}, suite.how) for name, task in suite.tasks.items()]


def _is_two_sided(task: Any) -> bool:
    return bool(getattr(task, "is_two_sided", False))


def is_pattern(name: str) -> bool:
    """Return whether a name stands for several."""
    return any(letter in name for letter in "*?[")


def seed_everything(seed: int) -> None:
    """As the harness before a run, so that what comes is the same whatever came before."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # what tasks and metrics draw from
    torch.manual_seed(seed)


def _configure(suite: Suite, study: Study) -> None:
    """As the harness's ``simple_evaluate`` does."""
    shots = suite.how.num_fewshot if suite.how.num_fewshot is not None else study.num_fewshot
    for task in suite.tasks.values():
        if study.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=study.gen_kwargs, update=True)
        own = task.get_config("num_fewshot")
        if own is None or (shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=study.seed)


def _documents(task: Any, limit: float | None) -> int | None:
    from lm_eval.evaluator_utils import get_sample_size

    size: int | None = get_sample_size(task, limit)
    return size


def _are_built(**_options: Any) -> None:
    """In the place of a task's ``build_all_requests``."""


def _pruned(group: Any, kept: set[str]) -> Any:
    """A group with some of its tasks and the groups that have any of them."""
    from dataclasses import replace

    smaller = replace(group, _children={})
    for child in group:
        if hasattr(child, "task_name"):
            if child.task_name in kept:
                smaller.add(child)
        elif len(inner := _pruned(child, kept)):
            smaller.add(inner)
    return smaller


def without_addresses(text: str) -> str:
    """Return a text without the addresses of functions, which differ from run to run."""
    return _ADDRESS.sub("", text)


def _digest(task: Any) -> str:
    config = {name: one for name, one in task.dump_config().items() if name not in ("metadata", "dataset_kwargs")}
    digest = hashlib.sha256(without_addresses(json.dumps(config, sort_keys=True, default=str)).encode())
    for one in task.instances:
        asked = [one.request_type, one.doc_id, one.idx, one.repeats, one.args, one.doc]
        digest.update(json.dumps(asked, sort_keys=True, default=str, ensure_ascii=False).encode())
    return digest.hexdigest()

"""From a study's file to what can be run: the model, the tasks with their requests, the grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from lm_eval_amplify.architecture import find_feed_forwards
from lm_eval_amplify.errors import AmplifyError, LanguageError, ModelError, StudyError, did_you_mean
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import locate_neurons, read_neurons
from lm_eval_amplify.quiet import without_warnings
from lm_eval_amplify.sweep.choosing import Rule
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.neurons import model_name
from lm_eval_amplify.sweep.plan import Part
from lm_eval_amplify.sweep.study import Choose, TaskRun
from lm_eval_amplify.sweep.study_file import StudyFile
from lm_eval_amplify.sweep.suites import Suite, TaskIndex, load_suites

_Place = tuple[str | int, ...]
_logger = logging.getLogger(__name__)


class StudyModel(AmplifiedHFLM):
    """The model of a study, loaded unamplified and switched."""

    is_switched_later: ClassVar[bool] = True
    shows_progress = False


@dataclass
class Prepared:
    """A study that can be run.

    Attributes:
        file: It.
        lm: Its model, unamplified.
        languages: Target languages.
        conditions: The grid, without languages and seeds.
        suites: Of the grid's tasks.
        index: Further tasks are loaded from it.
        bases: Languages of the tasks.
    """

    file: StudyFile
    lm: StudyModel
    languages: tuple[str, ...]
    conditions: list[Condition]
    suites: list[Suite]
    index: TaskIndex
    bases: tuple[str, ...]
    _then: list[Suite] | None = None
    _built_for: dict[tuple[str, str], Suite] = field(default_factory=dict)

    def suite(self, name: str) -> Suite:
        """Return a suite of the grid by its name."""
        return next(suite for suite in self.suites if suite.name == name)

    @property
    def then_suites(self) -> list[Suite]:
        """The suites of the tasks that run after the choice; those of both sides yet to be built for a target."""
        if self._then is None:
            then = self.file.study.then
            self._then = self._load(then.tasks if then is not None else (), self.languages)
            for suite in self._then:
                if not suite.is_two_sided:
                    _build(self.file, ("then", "tasks"), suite, self.lm)
        return self._then

    def built_for(self, suite: Suite, target: str) -> Suite:
        """Return a suite of both sides with documents for one target alone."""
        key = (suite.name, target)
        if key not in self._built_for:
            with without_warnings():  # of the target's own tasks, which are left out
                (built,) = self._load([suite.how.model_copy(update={"task": suite.name})], (target,))
            _build(self.file, ("then", "tasks"), built, self.lm)
            self._built_for[key] = built
        return self._built_for[key]

    def _load(self, runs: Sequence[TaskRun], targets: Sequence[str]) -> list[Suite]:
        study = self.file.study
        placed: list[tuple[_Place, TaskRun]] = [(("then", "tasks", number), run) for number, run in enumerate(runs)]
        self.index.use_metadata({**study.model, **study.metadata, "targets": list(targets)})
        return [suite for _, suite in load_suites(study, placed, self.index, self.bases)]

    def part(self, suite: Suite) -> Part:
        """Return what a plan has to know of a suite."""
        choose = self.file.study.choose
        amplify, is_limit = suite.how.amplify, self.limit_suite is suite
        if is_limit and amplify == "self":
            amplify = "matrix"  # the limit is on what happens to the other languages
        # What random neurons damage limits nothing, and would be most of the units.
        has_controls = not is_limit or (choose is not None and choose.task == suite.name)
        languages = tuple(suite.languages.values())
        return Part(suite.name, languages, suite.is_two_sided, amplify, has_controls, must_run_unamplified=is_limit)

    @property
    def limit_suite(self) -> Suite | None:
        """The suite whose metric limits the choice."""
        choose = self.file.study.choose
        if choose is None or choose.bound is None:
            return None
        if choose.limit_task is not None:
            return self.suite(choose.limit_task)
        metric, _ = choose.bound
        return next(suite for suite in self.suites if metric in suite.metrics and not suite.is_two_sided)

    @property
    def rule(self) -> Rule:
        """What the choice goes by."""
        choose = self.file.study.choose
        assert choose is not None  # noqa: S101  # asked for only where there is one
        higher = self.suite(choose.task).higher_is_better(choose.metric)
        if choose.bound is None or self.limit_suite is None:
            return Rule(higher, None)
        metric, bound = choose.bound
        return Rule(higher, bound, self.limit_suite.higher_is_better(metric))


def prepare(file: StudyFile) -> Prepared:
    """Load the model and the tasks of a study, and build the requests.

    Raises:
        AmplifyError: Something is unknown, missing or does not fit; says where in the file.
    """
    study = file.study
    languages = _languages(file)
    bases = tuple(study.bases or languages)
    runs: list[tuple[_Place, TaskRun]] = [(("tasks", number), run) for number, run in enumerate(study.tasks)]
    later = study.then.tasks if study.then is not None else []
    index = TaskIndex([run.task for run in (*study.tasks, *later)], study.include_path, file.located)
    index.use_metadata({**study.model, **study.metadata, "targets": list(languages)})
    loaded = load_suites(study, runs, index, bases)
    for number, run in enumerate(later):
        index.matching(run.task, ("then", "tasks", number))
    if study.choose is not None:
        _check_choice(file, study.choose, {suite.name: suite for _, suite in loaded}, languages)
    for place, suite in loaded:
        _check_languages(file, place, suite, languages)
    lm = load_lm(file)
    lm.languages_of_requests = {*languages, *bases}
    num_layers = len(find_feed_forwards(lm.model))
    # By what they do: a preset and its parts are one condition.
    grid = [one for interventions in study.interventions for one in interventions.conditions(num_layers)]
    by_slug: dict[str, Condition] = {}
    for one in grid:
        by_slug.setdefault(one.slug, one)
    conditions = list(by_slug.values())
    _check_layers(file, num_layers)
    suites = [suite for _, suite in loaded]
    for place, suite in loaded:
        _build(file, place, suite, lm)
    prepared = Prepared(file, lm, languages, conditions, suites, index, bases)
    for suite in prepared.then_suites:  # loaded here, so that what is wrong with them is known before anything runs
        _check_languages(file, ("then", "tasks"), suite, languages)
    return prepared


def load_lm(file: StudyFile) -> StudyModel:
    """Load the model of a study, unamplified.

    Raises:
        AmplifyError: It cannot be had, or an argument is wrong.
    """
    arguments = {name: value for name, value in file.study.model.items() if name != "pretrained"}
    arguments.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")  # HFLM takes "cuda" in any case
    name = model_name(file.study)
    try:
        lm = StudyModel(name, **arguments)
    except AmplifyError as error:
        raise file.located.error(("model",), str(error)) from error
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(str(file.located.error(("model",), f"cannot load {name!r}: {reason}"))) from error
    lm.model.config.name_or_path = name  # what is recorded; the embedded model's folder is this machine's
    return lm


def _languages(file: StudyFile) -> tuple[str, ...]:
    study = file.study
    if study.neurons is None:
        found = study.languages or (study.identify.languages if study.identify else None) or []
        return tuple(dict.fromkeys(found))
    try:
        neurons = read_neurons(locate_neurons(study.neurons))
    except AmplifyError as error:
        raise file.located.error(("neurons",), str(error)) from error
    for number, language in enumerate(study.languages or ()):
        try:
            neurons.resolve_language(language)
        except LanguageError as error:  # noqa: PERF203  # a few, each to be named
            raise file.located.error(("languages", number), str(error)) from error
    for number, grid in enumerate(study.interventions):
        for condition in grid.conditions(neurons.manifest.num_layers):
            if condition.intervention is not None:
                try:
                    condition.intervention.check_against(neurons)
                except AmplifyError as error:
                    raise file.located.error(("interventions", number), str(error)) from error
    return tuple(dict.fromkeys(study.languages or neurons.languages))


def _build(file: StudyFile, place: _Place, suite: Suite, lm: StudyModel) -> None:
    try:
        suite.build(file.study, lm)
    except AmplifyError as error:
        raise file.located.error(place, f"{suite.name}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise file.located.error(
            place, f"the requests of {suite.name} cannot be built: {type(error).__name__}: {reason}"
        ) from error


def _check_languages(file: StudyFile, place: _Place, suite: Suite, languages: Sequence[str]) -> None:
    """Check that something of a suite will run amplified."""
    if suite.is_two_sided or suite.how.amplify != "self":
        return
    unknown = [name for name, language in suite.languages.items() if language is None and not suite.says(name)]
    if unknown:
        raise file.located.error(
            place, f"{unknown[0]} has no language of its own: say `amplify: cross`, with the neurons of each target"
        )
    if not any(language is None or language in languages for language in suite.languages.values()):
        raise file.located.error(
            place, f"{suite.name} has no task in a target language: say `amplify: cross`, or name other languages"
        )


def _check_layers(file: StudyFile, num_layers: int) -> None:
    for number, grid in enumerate(file.study.interventions):
        for condition in grid.conditions(num_layers):
            layers = condition.intervention.chosen_layers if condition.intervention is not None else None
            outside = sorted(layer for layer in layers or () if layer >= num_layers)
            if outside:
                raise file.located.error(
                    ("interventions", number, "layers"),
                    f"layer {outside[0]} is out of range, the model has layers 0 to {num_layers - 1}",
                )


def _check_choice(file: StudyFile, choose: Choose, suites: Mapping[str, Suite], languages: Sequence[str]) -> None:
    for name, task in (("task", choose.task), ("limit_task", choose.limit_task)):
        if task is not None and task not in suites:
            raise file.located.error(
                ("choose", name),
                f"{task!r}{did_you_mean(task, suites)}: expected one of the study's tasks, {', '.join(suites)}",
            )
    own = suites[choose.task]
    if choose.metric not in own.metrics:
        raise _no_metric(file, ("choose", "metric"), choose.metric, own)
    if not own.is_mean(choose.metric):
        raise file.located.error(
            ("choose", "metric"), f"{choose.metric} of {own.name} is no mean over documents, as acc and lss are"
        )
    if not any(own.has_value_for(target) for target in languages):
        raise file.located.error(
            ("choose", "task"), f"{own.name} has no value for any of the languages {', '.join(languages)}"
        )
    if none := [target for target in languages if not own.has_value_for(target)]:
        _logger.warning("%s has no value for %s: nothing is chosen for them", own.name, ", ".join(none))
    if not own.is_two_sided and own.how.amplify == "cross":
        raise file.located.error(("choose", "task"), f"{own.name} runs in other languages only: nothing to choose by")
    _check_limit(file, choose, suites)


def _check_limit(file: StudyFile, choose: Choose, suites: Mapping[str, Suite]) -> None:
    if choose.bound is None:
        return
    metric, _ = choose.bound
    have = [suite for suite in suites.values() if metric in suite.metrics and not suite.is_two_sided]
    if choose.limit_task is not None and suites[choose.limit_task] not in have:
        raise _no_metric(file, ("choose", "limit", metric), metric, suites[choose.limit_task])
    if not have:
        raise file.located.error(
            ("choose", "limit", metric),
            f"no task of the study that runs amplified and unamplified reports {metric}: add one, such as "
            "amplify_flores_ppl for bits_per_byte",
        )


def _no_metric(file: StudyFile, place: _Place, metric: str, suite: Suite) -> StudyError:
    have = sorted(suite.metrics)
    return file.located.error(
        place, f"{suite.name} has no metric {metric!r}{did_you_mean(metric, have)}: it has {', '.join(have[:8])}"
    )

"""A study as its file says it: validated before anything is loaded; an error names the key, the line and what may be.

docs/studies.md has every key. A value that may be a list stands for each of its members in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from lm_eval_amplify.errors import InterventionError, LanguageError, did_you_mean
from lm_eval_amplify.intervention import Operation, Positions, parse_layers
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.presets import PRESETS, make_intervention
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.halves import Split

Amplify: TypeAlias = Literal["self", "cross", "matrix"]
"""Whose neurons are amplified while a task runs: its own language's, each other target's, or both."""

Value = TypeVar("Value")


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


OneOrMore: TypeAlias = Annotated[list[Value], BeforeValidator(_as_list), Field(min_length=1)]


def _language(name: Any) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"{name!r}: expected a language, such as ind_Latn")  # noqa: TRY004  # pydantic takes these
    try:
        return canonical_language(name)
    except LanguageError as error:
        raise ValueError(str(error)) from error


Language: TypeAlias = Annotated[str, BeforeValidator(_language)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Identify(_Part):
    """Neurons to be found, as by ``lm-eval-amplify identify``, whose options these are."""

    corpus: str
    tokens: int | None = Field(default=None, ge=1)
    method: Literal["lape", "activation", "random"] = "lape"
    top_rate: float | None = None
    filter_rate: float | None = None
    activation_bar_ratio: float | None = None
    top_k: int | None = None
    seed: int | None = None
    statistics: list[str] | None = None
    allow_short: bool = False
    max_length: int = Field(default=512, ge=1)
    batch_size: int = Field(default=8, ge=1)
    chat_template: bool = False
    languages: list[Language] | None = None
    """By default those of the study."""


class Interventions(_Part):
    """Interventions: every combination of the values."""

    operation: OneOrMore[Operation] | None = None
    statistic: OneOrMore[str] | None = None
    factor: OneOrMore[float] | None = None
    preset: OneOrMore[str] | None = None
    others_operation: Operation | None = None
    others_factor: OneOrMore[float] | None = None
    layers: OneOrMore[str | int] = ["all"]
    positions: OneOrMore[Positions] = ["all"]
    per_layer: bool = False
    """Each of the layers by itself, all of them instead of together."""

    @model_validator(mode="after")
    def _fits(self) -> Interventions:
        for name in self.preset or ():
            if name not in PRESETS:
                raise ValueError(f"preset {name!r}{did_you_mean(name, PRESETS)}: expected {', '.join(PRESETS)}")
        try:
            self.conditions(1)
        except InterventionError as error:
            raise ValueError(str(error)) from error
        return self

    def conditions(self, num_layers: int | None) -> list[Condition]:
        """Return the grid.

        Args:
            num_layers: Of the model, for ``per_layer``.
        """
        found: dict[Condition, None] = {}
        others_factors: Sequence[float | None] = self.others_factor or (None,)
        for layers in self._layers(num_layers):
            for positions in self.positions:
                for others_factor in others_factors:
                    for named in self._named():
                        intervention = make_intervention(
                            **named,
                            others_operation=self.others_operation,
                            others_factor=others_factor,
                            layers=layers,
                            positions=positions,
                        )
                        found[Condition(intervention, preset=named.get("preset"))] = None
        return list(found)

    def _named(self) -> list[dict[str, Any]]:
        presets: list[dict[str, Any]] = [{"preset": name} for name in self.preset or ()]
        given = (self.operation, self.statistic, self.factor)
        if presets and any(one is not None for one in given):
            raise InterventionError("preset stands for operation, statistic and factor: give these in an entry apart")
        if presets:
            return presets
        statistics: Sequence[str | None] = self.statistic or (None,)
        operations: list[Operation] = self.operation or ["set"]
        return [
            {"operation": operation, "statistic": statistic, "factor": factor}
            for operation in operations
            # `scale` has no use for a statistic, and would be there once for each.
            for statistic in ((None,) if operation == "scale" and self.others_operation is None else statistics)
            for factor in self.factor or [1.0]
        ]

    def _layers(self, num_layers: int | None) -> list[str]:
        if not self.per_layer:
            return [str(layers) for layers in self.layers]
        chosen: set[int] = set()
        for layers in self.layers:
            parsed = parse_layers(str(layers))
            chosen |= set(range(num_layers or 0)) if parsed is None else parsed
        return [str(layer) for layer in sorted(chosen)]


class Controls(_Part):
    """What the effect is compared with."""

    random: list[Annotated[int, Field(ge=0)]] = []
    """Seeds: as many random neurons in each layer, in place of each language's."""
    unamplified: bool = True
    """Tasks of one side run unamplified, too; those of both sides always do."""
    corpus: str | None = None
    """Texts for the random neurons' statistics; by default those that the neurons were found on."""
    tokens: int | None = Field(default=None, ge=1)
    """Of each language; by default as many as for the neurons."""


class TaskRun(_Part):
    """A task, a group of tasks, or a pattern of their names."""

    task: str
    amplify: Amplify = "self"
    num_fewshot: int | None = Field(default=None, ge=0)
    limit: float | None = Field(default=None, gt=0)
    """Documents of each task, or below 1 their share; by default the study's."""


def _task(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


Tasks: TypeAlias = Annotated[
    list[Annotated[TaskRun, BeforeValidator(_task)]], BeforeValidator(_as_list), Field(min_length=1)
]


class Bound(_Part):
    """How far a metric may move from the unamplified model's; a number alone is a ratio."""

    ratio: float | None = Field(default=None, gt=0)
    """To the unamplified value."""
    difference: float | None = None
    """From the unamplified value."""

    @model_validator(mode="after")
    def _fits(self) -> Bound:
        if (self.ratio is None) == (self.difference is None):
            raise ValueError("give a ratio to the unamplified model, or a difference from it")
        return self


def _bound(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"ratio": value}
    if isinstance(value, dict):
        return value
    raise ValueError(
        f"{value!r}: expected a ratio to the unamplified model, such as 1.2, or {{difference: 0.5}}, from it"
    )


class Choose(_Part):
    """How a condition is chosen for each target language."""

    metric: str = "lss"
    task: str
    """One of the study's tasks, whose ``metric`` chooses: of tasks of both sides that of each target, ``lss_ind_Latn``
    say; of others that of the tasks in the language."""
    split: Split = "half"
    """``half``: every other document of each task chooses, and the others report."""
    limit: dict[str, Annotated[Bound, BeforeValidator(_bound)]] = Field(default={}, max_length=1)
    """What the amplification may do to the tasks in other languages: a metric, and how far it may move."""
    limit_task: str | None = None
    """Task of the limit's metric; by default the study's one that has it."""

    @property
    def bound(self) -> tuple[str, Bound] | None:
        """The metric that is limited and how far it may move."""
        return next(iter(self.limit.items()), None)


class Then(_Part):
    """What runs under the condition that was chosen for each language."""

    tasks: Tasks
    random: list[Annotated[int, Field(ge=0)]] = []
    """Seeds of random neurons to run it with, too."""


class Study(_Part):
    """All of it."""

    model: dict[str, Any]
    """Arguments of ``amplified_hf`` that are not the intervention's."""
    neurons: str | None = None
    """Neuron file, or its name; or ``identify``."""
    identify: Identify | None = None
    languages: list[Language] | None = None
    """Target languages; by default those of the neuron file."""
    bases: list[Language] | None = None
    """Languages of the tasks that run, of groups that have many; by default ``languages``."""
    interventions: OneOrMore[Interventions]
    controls: Controls = Controls()
    tasks: Tasks
    choose: Choose | None = None
    then: Then | None = None
    limit: float | None = Field(default=None, gt=0)
    num_fewshot: int | None = Field(default=None, ge=0)
    metadata: dict[str, Any] = {}
    gen_kwargs: dict[str, Any] = {}
    include_path: list[str] = []
    apply_chat_template: bool | str = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    bootstrap_iters: int = Field(default=100, ge=0)
    """Resamples of standard errors that have no formula, BLEU's say."""
    seed: int = Field(default=1234, ge=0, lt=2**32)
    """Of few-shot examples and of everything that draws."""

    @model_validator(mode="after")
    def _fits(self) -> Study:
        if (self.neurons is None) == (self.identify is None):
            raise ValueError("give one of neurons (a file, or its name) and identify (how to find them)")
        if self.then is not None and self.choose is None:
            raise ValueError("then runs under what choose has chosen: give choose, or list its tasks under tasks")
        if self.identify is not None:
            if self.languages is None and self.identify.languages is None:
                raise ValueError("with identify, give the languages")
            found = self.identify.languages
            missing = [one for one in self.languages or () if found is not None and one not in found]
            if missing:
                raise ValueError(f"identify.languages has no {', '.join(missing)}, which languages names")
            self._check_statistics(self.identify.statistics)
        return self

    def _check_statistics(self, found: Sequence[str] | None) -> None:
        for grid in self.interventions:
            for condition in grid.conditions(1):
                needed = condition.intervention.needs_statistic if condition.intervention is not None else None
                if found is not None and needed is not None and needed not in found:
                    raise ValueError(f"{condition.label} needs the statistic {needed}: add it to identify.statistics")

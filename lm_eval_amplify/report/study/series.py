"""LSS by factor and by layer: treatments that differ in nothing else, as series."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.report.study.data import Band, LssTask
from lm_eval_amplify.sweep.conditions import Condition

Axis: TypeAlias = Literal["factor", "layer"]


class Point(NamedTuple):
    """One treatment of a series, for one language."""

    x: float
    """Its factor or layer."""
    treatment: Condition
    lss: float
    """On the facts reported; NaN where it was not measured."""
    random: Band | None
    """Of the random controls."""


class Series(NamedTuple):
    """Treatments that differ only in the factor, or only in the layer."""

    label: str
    treatments: tuple[tuple[float, Condition], ...]
    """With what they differ in, sorted by it."""


def series_of(treatments: Sequence[Condition], axis: Axis) -> list[Series]:
    """Return the series of treatments along an axis.

    By layer those of single layers, where there are several with nothing else different; by factor all others.
    """
    layered = _grouped([one for one in treatments if _is_of_one_layer(one)], _without_layer)
    layered = {key: own for key, own in layered.items() if len({_layers(one) for one in own}) > 1}
    if axis == "layer":
        made = [(own, [float(_layers(one)) for one in own]) for own in layered.values()]
    else:
        by_layer = {one for own in layered.values() for one in own}
        families = _grouped([one for one in treatments if one not in by_layer], _without_factor)
        made = [(own, [_intervention(one).factor for one in own]) for own in families.values()]
    return [
        Series(_label(own, axis), tuple(sorted(zip(values, own, strict=True), key=lambda pair: pair[0])))
        for own, values in made
    ]


def points_of(task: LssTask, series: Series, language: str) -> list[Point]:
    """Return a series' points for a target language that were measured."""
    points = [Point(x, one, task.lss(one, language), task.band(one, language)) for x, one in series.treatments]
    return [point for point in points if not math.isnan(point.lss)]


def _grouped(
    treatments: Sequence[Condition], key: Callable[[Condition], Intervention]
) -> dict[Intervention, list[Condition]]:
    found: dict[Intervention, list[Condition]] = {}
    for one in treatments:
        found.setdefault(key(one), []).append(one)
    return found


def _label(own: Sequence[Condition], axis: Axis) -> str:
    """Of what they share, as conditions are called; a preset by its name, where it is one alone."""
    first = own[0]
    if len(own) == 1 and first.preset is not None:
        return first.label
    plain = Condition(_intervention(first))
    if axis == "factor":
        return plain.label.replace(f" x {_intervention(first).factor:g}", "", 1)
    return Condition(replace(_intervention(first), layers="all")).label


def _intervention(treatment: Condition) -> Intervention:
    assert treatment.intervention is not None  # noqa: S101  # a treatment does something
    return treatment.intervention


def _layers(treatment: Condition) -> int:
    return int(_intervention(treatment).layers)


def _is_of_one_layer(treatment: Condition) -> bool:
    return _intervention(treatment).layers.isdigit()


def _without_layer(treatment: Condition) -> Intervention:
    return replace(_without_unused(treatment), layers="all")


def _without_factor(treatment: Condition) -> Intervention:
    return replace(_without_unused(treatment), factor=1.0)


def _without_unused(treatment: Condition) -> Intervention:
    """Scaling takes no statistic, whatever the intervention says."""
    one = _intervention(treatment)
    uses_none = one.operation == "scale" and one.others_operation in (None, "scale")
    return replace(one, statistic="max") if uses_none else one

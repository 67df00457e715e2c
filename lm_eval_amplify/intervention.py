"""What is done to which neurons, and with which values: pure, checked before any model exists.

An :class:`Intervention` is what a user asks for; :func:`plan` turns it, with a neuron file and a target language,
into the edits of each layer. The amplifier executes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import InterventionError, did_you_mean
from lm_eval_amplify.neurons.file import CONSTANT_ONE, LanguageNeurons, NeuronFile

Operation: TypeAlias = Literal["set", "add", "scale"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

Positions: TypeAlias = Literal["all", "prompt", "generated"]
"""Where in its input: ``generated`` are the positions whose logits predict a generated or scored token, the last of the
prompt among them; ``prompt`` are those before.
"""
POSITIONS: tuple[Positions, ...] = get_args(Positions)

TestTime: TypeAlias = Literal["batch_p10", "batch_median", "batch_p90", "batch_mean", "batch_max", "running_max"]
"""A statistic that is not the neuron's in its language but the running input's: see
:mod:`~lm_eval_amplify.test_time`."""
TEST_TIME: tuple[TestTime, ...] = get_args(TestTime)
_TEST_TIME_PREFIXES = ("batch_", "running_")

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def parse_layers(layers: str) -> frozenset[int] | None:
    """Return ``0-5+20`` as a set of layers, from 0; None for ``all``.

    Raises:
        InterventionError: It is neither.
    """
    if layers == "all":
        return None
    chosen: set[int] = set()
    for part in layers.split("+"):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InterventionError(f"layers={layers}: expected 'all' or layers and ranges such as 0-5+20")
        chosen.update(range(first, last + 1))
    return frozenset(chosen)


@dataclass(frozen=True)
class Intervention:
    """An operation with its factor on the neurons of a language; validated on construction.

    With a the activation of a neuron and s its statistic: ``set`` makes it factor * s, ``add`` a + factor * s,
    ``scale`` factor * a.

    Attributes:
        operation: On the target language's neurons.
        factor: A finite number.
        statistic: Of the neuron in its language, as named in the neuron file, or ``one``, or a test-time statistic of
            the running input (:data:`TestTime`); ``scale`` uses none.
        others_operation: On the neurons of all other languages of the file that are not the target's too;
            None leaves them alone.
        others_factor: Its factor; needed exactly if there is an ``others_operation``.
        layers: ``all``, or layers and inclusive ranges joined with ``+``: ``0-5+20``.
        positions: Where in the input, for both operations; see :data:`Positions`.

    Raises:
        InterventionError: On construction; names the argument, what came and what is allowed.
    """

    operation: Operation = "set"
    factor: float = 1.0
    statistic: str = "max"
    others_operation: Operation | None = None
    others_factor: float | None = None
    layers: str = "all"
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _one_of("operation", self.operation, OPERATIONS)
        object.__setattr__(self, "factor", _finite("factor", self.factor))
        object.__setattr__(self, "layers", str(self.layers))
        parse_layers(self.layers)
        if not isinstance(self.statistic, str):
            raise InterventionError(f"statistic={self.statistic!r}: expected the name of a statistic, or 'one'")
        if self.statistic.startswith(_TEST_TIME_PREFIXES):
            _one_of("statistic", self.statistic, TEST_TIME)
        _one_of("positions", self.positions, POSITIONS)
        if self.others_operation is not None:
            _one_of("others_operation", self.others_operation, OPERATIONS)
            if self.others_factor is None:
                raise InterventionError(f"others_operation={self.others_operation} needs others_factor=<number>")
            object.__setattr__(self, "others_factor", _finite("others_factor", self.others_factor))
        elif self.others_factor is not None:
            raise InterventionError(f"others_factor={self.others_factor} needs others_operation={'|'.join(OPERATIONS)}")

    @property
    def operations(self) -> tuple[tuple[Operation, float], ...]:
        """The operations with their factors: on the target's neurons, then on the others', if any."""
        own = ((self.operation, self.factor),)
        if self.others_operation is None or self.others_factor is None:
            return own
        return (*own, (self.others_operation, self.others_factor))

    @property
    def is_identity(self) -> bool:
        """Whether no activation can change: ``scale`` by 1, ``add`` of 0 times a statistic."""
        return all(_is_identity(operation, factor) for operation, factor in self.operations)

    @property
    def needs_statistic(self) -> str | None:
        """The statistic that a neuron file must have for this intervention, or None."""
        if not self._uses_statistic or self.statistic == CONSTANT_ONE or self.test_time is not None:
            return None
        return self.statistic

    @property
    def test_time(self) -> TestTime | None:
        """The statistic of the running input that it takes, or None."""
        return next((name for name in TEST_TIME if name == self.statistic and self._uses_statistic), None)

    @property
    def asks_for_positions(self) -> bool:
        """Whether it acts, or takes its statistic, at some positions only, so that these must be known."""
        return self.positions != "all" or self.test_time is not None

    @property
    def chosen_layers(self) -> frozenset[int] | None:
        """The layers, from 0; None: all."""
        return parse_layers(self.layers)

    @property
    def _uses_statistic(self) -> bool:
        return any(operation != "scale" for operation, _ in self.operations)

    @property
    def signature_parts(self) -> dict[str, str]:
        """What the intervention does, by name; equal only for interventions that do the same."""
        parts = {"operation": self.operation, "factor": repr(self.factor)}
        if self._uses_statistic:
            parts["statistic"] = self.statistic
        if self.others_operation is not None:
            parts["others"] = f"{self.others_operation}*{self.others_factor!r}"
        layers = parse_layers(self.layers)
        parts["layers"] = "all" if layers is None else "+".join(map(str, sorted(layers)))
        parts["positions"] = self.positions
        return parts

    def check_against(self, neurons: NeuronFile) -> None:
        """Check that a neuron file has what the intervention needs.

        Raises:
            InterventionError: It lacks the statistic, or a layer is out of its range.
        """
        statistic = self.needs_statistic
        if statistic is not None and any(map(len, neurons.neurons.values())) and statistic not in neurons.statistics:
            have = ", ".join(neurons.statistics)
            raise InterventionError(
                f"the neuron file has no statistic {statistic!r}{did_you_mean(statistic, neurons.statistics)}; "
                + (f"it has {have} and the constant 'one'" if have else "it has none (an imported mask has none)")
                + ": use statistic=one with a factor of the activations' size, operation=scale, or a file with it"
            )
        num_layers = neurons.manifest.num_layers
        outside = sorted(layer for layer in parse_layers(self.layers) or () if layer >= num_layers)
        if outside:
            raise InterventionError(
                f"layers={self.layers}: layer {outside[0]} is out of range, the neuron file's model has layers "
                f"0 to {num_layers - 1}"
            )


@dataclass(frozen=True, eq=False)
class Edit:
    """One operation on some neurons of one layer.

    Attributes:
        layer: The layer, from 0.
        operation: ``set``: activation = value; ``add``: activation + value; ``scale``: activation * value.
        index: The neurons in d_ff, int64 ``[neurons]``, each once.
        value: factor * statistic, or the factor of ``scale``, float64 ``[neurons]``.
        test_time: The statistic of the running input that the value is multiplied with where it is used, or None.
    """

    layer: int
    operation: Operation
    index: NDArray[np.int64]
    value: NDArray[np.float64]
    test_time: TestTime | None = None


def plan(intervention: Intervention, neurons: NeuronFile, targets: Sequence[str]) -> tuple[Edit, ...]:
    """Return the edits of every layer for amplifying ``targets``, by layer; no neuron is in two edits.

    The neurons of several targets are united; one that they share is edited once, with the statistic that it has in
    the target named first. A neuron of a target and of another language counts as the target's. Among other languages
    the first of the file that has a neuron gives its statistic.

    Args:
        intervention: What to do.
        neurons: The neuron file; must pass :meth:`Intervention.check_against`.
        targets: Languages of the file.
    """
    taken: set[tuple[int, int]] = set()
    edits = _edits(intervention, intervention.operation, intervention.factor, neurons, targets, taken)
    if intervention.others_operation is not None and intervention.others_factor is not None:
        others = neurons.languages  # the targets among them have all their neurons taken
        edits += _edits(intervention, intervention.others_operation, intervention.others_factor, neurons, others, taken)
    return tuple(sorted(edits, key=lambda edit: edit.layer))


def _edits(
    intervention: Intervention,
    operation: Operation,
    factor: float,
    neurons: NeuronFile,
    languages: Sequence[str],
    taken: set[tuple[int, int]],
) -> list[Edit]:
    """The edits of one operation; ``taken`` holds the (layer, index) that have theirs and gets these."""
    layers = parse_layers(intervention.layers)
    by_layer: dict[int, dict[int, float]] = {}
    for language in languages:
        own = neurons.neurons[language]
        for layer, index, value in zip(
            own.layer.tolist(), own.index.tolist(), _values(operation, factor, intervention, own), strict=True
        ):
            if (layers is None or layer in layers) and (layer, index) not in taken:
                taken.add((layer, index))
                by_layer.setdefault(layer, {})[index] = value
    if _is_identity(operation, factor):
        return []
    test_time = None if operation == "scale" else intervention.test_time
    return [
        Edit(layer, operation, np.array(list(found), np.int64), np.array(list(found.values()), np.float64), test_time)
        for layer, found in by_layer.items()
    ]


def _values(operation: Operation, factor: float, intervention: Intervention, own: LanguageNeurons) -> list[float]:
    if operation == "scale" or intervention.test_time is not None:
        return [factor] * len(own)
    if not len(own):
        return []
    values: list[float] = (factor * own.statistic(intervention.statistic).astype(np.float64)).tolist()
    return values


def _is_identity(operation: Operation, factor: float) -> bool:
    return (operation == "scale" and factor == 1) or (operation == "add" and factor == 0)


def _one_of(argument: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InterventionError(f"{argument}={value}{did_you_mean(str(value), allowed)}: expected {', '.join(allowed)}")


def _finite(argument: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InterventionError(f"{argument}={value!r}: expected a finite number, such as 2.5")
    return float(value)

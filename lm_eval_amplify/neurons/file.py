"""The neurons of each language and where they come from, as a validated value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lm_eval_amplify.errors import LanguageError, NeuronFileError, did_you_mean
from lm_eval_amplify.languages import canonical_language

STATISTIC_NAME = re.compile(r"[a-z][a-z0-9_]*")
CONSTANT_ONE = "one"
"""The statistic that every file has: the constant 1."""


class Manifest(BaseModel):
    """What a neuron file says of itself. Unknown further fields are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str | None = None
    """Hub name or path of the model that the neurons belong to; None: not recorded."""
    revision: str | None = None
    """Commit of the model."""
    architecture: str | None = None
    """Class name of the model, ``Qwen2ForCausalLM`` say."""
    num_layers: int = Field(gt=0)
    """Number of decoder layers; layers count from 0."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Neurons per layer (d_ff); None: not recorded, as in a reference mask."""
    num_experts: int | None = Field(default=None, gt=0)
    """Experts per layer of a mixture-of-experts model."""
    site: Literal["act_fn"] = "act_fn"
    """The output of the feed-forward network's activation function."""
    method: str
    """How the neurons were found: ``lape``, ``imported``, ..."""
    parameters: dict[str, Any] = {}
    """The method's parameters."""
    corpus: str | None = None
    """The texts that they were found on."""
    tokens: dict[str, int] = {}
    """Tokens read per language."""
    package_version: str
    """Version of this package that made the file."""
    languages: tuple[str, ...]
    """FLORES-200 codes in the order of identification."""


@dataclass(frozen=True, eq=False)
class LanguageNeurons:
    """The neurons of one language, sorted by (layer, expert, index), each once.

    Attributes:
        layer: Layer of each neuron, int32 ``[neurons]``.
        index: Index of each neuron in its layer's (expert's) d_ff, int32 ``[neurons]``.
        statistics: Statistics of each neuron's activation in the language, float32 ``[neurons]`` by name.
        expert: Expert of each neuron, int32 ``[neurons]``, in a mixture-of-experts model.
    """

    layer: NDArray[np.int32]
    index: NDArray[np.int32]
    statistics: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    expert: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.layer)

    def per_layer(self, num_layers: int) -> NDArray[np.int64]:
        """Return the number of neurons in each layer, ``[num_layers]``."""
        return np.bincount(self.layer, minlength=num_layers)

    def statistic(self, name: str) -> NDArray[np.float32]:
        """Return a statistic by name, ``[neurons]``; ``one`` is the constant 1.

        Raises:
            KeyError: The neurons have no such statistic.
        """
        return np.ones(len(self), np.float32) if name == CONSTANT_ONE else self.statistics[name]


@dataclass(frozen=True, eq=False)
class NeuronFile:
    """The content of a neuron file; validated on construction.

    Attributes:
        manifest: Where the neurons come from; its ``languages`` give the order.
        neurons: The neurons of each language of the manifest; a language without any has empty arrays.
        sha256: Digest of the bytes that the content was read from; None if it was not read from a file.

    Raises:
        NeuronFileError: On construction; names the field, what was found and what was expected.
    """

    manifest: Manifest
    neurons: Mapping[str, LanguageNeurons]
    sha256: str | None = None

    def __post_init__(self) -> None:
        languages = self.manifest.languages
        if len(set(languages)) != len(languages):
            raise NeuronFileError(f"manifest field 'languages' names a language twice: {', '.join(languages)}")
        if set(languages) != set(self.neurons):
            raise NeuronFileError(
                f"manifest field 'languages' is {', '.join(languages)}, but there are tensors of "
                f"{', '.join(self.neurons) or 'no language'}"
            )
        for language, neurons in self.neurons.items():
            if not language or "/" in language:
                raise NeuronFileError(f"language {language!r}: expected a name without '/', such as ind_Latn")
            _validate(language, neurons, self.manifest)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the file's order."""
        return self.manifest.languages

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the statistics that every language of the file with neurons has."""
        have = [set(neurons.statistics) for neurons in self.neurons.values() if len(neurons)]
        return tuple(sorted(set.intersection(*have))) if have else ()

    def resolve_language(self, name: str) -> str:
        """Return the language of this file that ``name`` (a code, ISO code or English name) means.

        Raises:
            LanguageError: The file has no such language; names those it has.
        """
        if name in self.neurons:
            return name
        code = canonical_language(name)
        if code not in self.neurons:
            raise LanguageError(
                f"the neuron file has no language {code!r}{did_you_mean(code, self.languages, cutoff=0.8)}; "
                f"it has {', '.join(self.languages)}"
            )
        return code


def _validate(language: str, neurons: LanguageNeurons, manifest: Manifest) -> None:
    _check_tensor(language, "layer", neurons.layer, np.int32, len(neurons))
    _check_tensor(language, "index", neurons.index, np.int32, len(neurons))
    _check_range(language, "layer", neurons.layer, manifest.num_layers, "num_layers")
    _check_range(language, "index", neurons.index, manifest.intermediate_size, "intermediate_size")
    if neurons.expert is not None:
        _check_tensor(language, "expert", neurons.expert, np.int32, len(neurons))
        _check_range(language, "expert", neurons.expert, manifest.num_experts, "num_experts")
    for name, values in neurons.statistics.items():
        if not STATISTIC_NAME.fullmatch(name) or name == CONSTANT_ONE:
            raise NeuronFileError(
                f"statistic {name!r} of {language}: expected lower-case letters, digits and '_', other than 'one'"
            )
        _check_tensor(language, f"stat.{name}", values, np.float32, len(neurons))
        if not np.isfinite(values).all():
            position = int(np.flatnonzero(~np.isfinite(values))[0])
            raise NeuronFileError(
                f"tensor '{language}/stat.{name}' holds {values[position]} at {position}, expected a finite number"
            )
    _check_sorted(language, neurons)


def _check_tensor(language: str, name: str, values: NDArray[Any], dtype: type, length: int) -> None:
    if values.dtype != dtype or values.shape != (length,):
        raise NeuronFileError(
            f"tensor '{language}/{name}' is {values.dtype}{list(values.shape)}, "
            f"expected {np.dtype(dtype)}[{length}] as '{language}/layer'"
        )


def _check_range(language: str, name: str, values: NDArray[np.int32], size: int | None, source: str) -> None:
    outside = values < 0 if size is None else (values < 0) | (values >= size)
    if outside.any():
        position = int(np.flatnonzero(outside)[0])
        expected = "0 or more" if size is None else f"0 to {size - 1} (manifest field {source!r} is {size})"
        raise NeuronFileError(f"tensor '{language}/{name}' holds {values[position]} at {position}, expected {expected}")


def _check_sorted(language: str, neurons: LanguageNeurons) -> None:
    expert = neurons.expert if neurons.expert is not None else np.zeros_like(neurons.layer)
    keys = list(zip(neurons.layer.tolist(), expert.tolist(), neurons.index.tolist(), strict=True))
    for position, (before, after) in enumerate(pairwise(keys), start=1):
        if before >= after:
            raise NeuronFileError(
                f"neurons of {language} are not sorted and unique: (layer, expert, index) {after} at {position} "
                f"follows {before}"
            )

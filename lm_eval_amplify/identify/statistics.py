"""Statistics of chosen neurons' activations in their own language: what ``set`` and ``add`` write.

| name | of a neuron, over the tokens of its language's texts that were counted |
| --- | --- |
| max | the highest activation |
| mean | the mean activation |
| p10, median, p90 | quantiles of the activation |
| sentence_max | the highest of the sentences' mean activations |
| sentence_median | the median of the sentences' mean activations (of an even number the mean of the middle
two) |

A sentence is a document of the corpus. sentence_max and sentence_median are p_max and p_median of Rahmanisa et al.
2025 (arXiv 2507.22581). Quantiles of up to 1024 tokens or sentences are exact, of more they are those of a sketch
whose greatest possible error in rank the neuron file records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from lm_eval_amplify.errors import IdentificationError, ModelError, did_you_mean
from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.keeping import Found
from lm_eval_amplify.identify.sentences import SentenceMeans
from lm_eval_amplify.identify.sketch import QuantileSketch
from lm_eval_amplify.identify.tokens import Batch
from lm_eval_amplify.neurons.file import LanguageNeurons

_QUANTILES = {"p10": 0.1, "median": 0.5, "p90": 0.9}
_OF_SENTENCES = ("sentence_max", "sentence_median")
STATISTICS = ("max", "mean", *_QUANTILES, *_OF_SENTENCES)
"""Names of the statistics that identification writes."""


class WithStatistics(NamedTuple):
    """Neurons with statistics, and how exact these are."""

    neurons: dict[str, LanguageNeurons]
    rank_error: dict[str, dict[str, float]]
    """By language, of quantiles over ``tokens`` and over ``sentences``: by what share of these the rank of a value
    in the file may be off at most; 0 is exact."""


def check_statistics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of statistics, each once.

    Raises:
        IdentificationError: There is no statistic of a name.
    """
    for name in names:
        if name not in STATISTICS:
            raise IdentificationError(
                f"unknown statistic {name!r}{did_you_mean(name, STATISTICS)}: there are {', '.join(STATISTICS)}"
            )
    return tuple(dict.fromkeys(names))


def with_statistics(
    activations: Activations, neurons: Mapping[str, LanguageNeurons], names: Sequence[str] = STATISTICS
) -> WithStatistics:
    """Return the neurons of each language with statistics on its texts, besides any others that they have.

    The model runs once over the texts of each language that has neurons. Memory does not grow with the texts but for
    the sketch, 1024 values a neuron each time that they double.

    Raises:
        ModelError: An activation is NaN or infinite; names the layer.
    """
    none = dict.fromkeys(names, torch.empty(0))
    added = {language: _added(own, none) for language, own in neurons.items() if not len(own)}
    rank_error = {}
    read = activations.read(
        "statistics",
        [language for language, own in neurons.items() if len(own)] if names else [],
        lambda language: _Series(language, neurons[language], names),
    )
    for language, found in read:
        rank_error[language] = {kind: float(found.pop(f"rank_error.{kind}")) for kind in ("sentences", "tokens")}
        added[language] = _added(neurons[language], found)
    return WithStatistics({language: added.get(language, own) for language, own in neurons.items()}, rank_error)


def _added(own: LanguageNeurons, values: Mapping[str, torch.Tensor]) -> LanguageNeurons:
    statistics = {name: value.numpy().astype(np.float32) for name, value in values.items()}
    return replace(own, statistics=dict(sorted({**own.statistics, **statistics}.items())))


class _Part(NamedTuple):
    """What one process saw."""

    max: torch.Tensor
    sums: torch.Tensor
    tokens: int
    sentence_max: torch.Tensor
    sketches: dict[int, tuple[QuantileSketch, QuantileSketch]]
    """By layer, over tokens and over sentences."""


class _Layer:
    """A layer's neurons of the language, on the layer's device."""

    def __init__(self, index: torch.Tensor, device: torch.device) -> None:
        self.index = index.to(device)
        number = len(index)
        # Metal has no float64.
        self.exact = torch.float32 if device.type == "mps" else torch.float64
        self.max = torch.full((number,), -torch.inf, device=device)
        self.sums = torch.zeros(number, dtype=self.exact, device=device)
        self.sentence_max = torch.full((number,), -torch.inf, dtype=self.exact, device=device)
        self.tokens = QuantileSketch(number)
        self.sentences = QuantileSketch(number)
        self.means = SentenceMeans()
        self.seen = torch.empty(0)


class _Series:
    """Sums, maxima and sketches of the activations of a language's neurons."""

    def __init__(self, language: str, neurons: LanguageNeurons, names: Sequence[str]) -> None:
        self._language = language
        self._neurons = neurons
        self._names = names
        self._index = {
            layer: torch.from_numpy(neurons.index[neurons.layer == layer].astype(np.int64))
            for layer in np.unique(neurons.layer).tolist()
        }
        self.layers = tuple(self._index)
        self._by_layer: dict[int, _Layer] = {}
        self._tokens = 0

    @property
    def key(self) -> str:
        """The neurons and the statistics' names."""
        digest = hashlib.sha256(self._neurons.layer.tobytes() + self._neurons.index.tobytes()).hexdigest()
        return f"{digest} {' '.join(self._names)}"

    def see(self, layer: int, activation: torch.Tensor, _is_counted: torch.Tensor) -> None:
        own = self._of(layer, activation.device)
        own.seen = activation.index_select(1, own.index).to(torch.float32)

    def end_batch(self, batch: Batch) -> None:
        rows, length = batch.ids.shape
        at = np.flatnonzero(batch.is_counted)
        self._tokens += len(at)
        for own in self._by_layer.values():
            device = own.seen.device
            # Not a product with the mask: an activation at a padding position may be no number.
            counted = own.seen.index_select(0, torch.from_numpy(at).to(device))
            own.seen = torch.empty(0)
            if len(at):
                own.max = torch.maximum(own.max, counted.amax(0))
            row_sums = torch.zeros((rows, counted.shape[1]), dtype=own.exact, device=device)
            row_sums.index_add_(0, torch.from_numpy(at // length).to(device), counted.to(own.exact))
            own.sums += row_sums.sum(0)
            if self._wants(*_QUANTILES):
                own.tokens.add(counted)
            if self._wants(*_OF_SENTENCES):
                means = own.means.completed(row_sums, batch)
                if len(means):
                    own.sentence_max = torch.maximum(own.sentence_max, means.amax(0))
                    own.sentences.add(means)

    def part(self) -> _Part:
        layers = [self._of(layer, torch.device("cpu")) for layer in self.layers]

        def over_layers(name: str) -> torch.Tensor:
            return torch.cat([getattr(layer, name).cpu().to(torch.float64) for layer in layers])

        sketches = {
            layer: (own.tokens.cpu(), own.sentences.cpu()) for layer, own in zip(self.layers, layers, strict=True)
        }
        return _Part(over_layers("max"), over_layers("sums"), self._tokens, over_layers("sentence_max"), sketches)

    def found(self, parts: Sequence[Any]) -> Found:
        first: _Part = parts[0]
        for part in parts[1:]:
            for layer, sketches in part.sketches.items():
                for own, other in zip(first.sketches[layer], sketches, strict=True):
                    own.merge(other)
        tokens, sentences = ([pair[kind] for pair in first.sketches.values()] for kind in (0, 1))
        everything = {
            "max": torch.stack([part.max for part in parts]).amax(0),
            "mean": torch.stack([part.sums for part in parts]).sum(0) / sum(part.tokens for part in parts),
            "sentence_max": torch.stack([part.sentence_max for part in parts]).amax(0),
        }
        quantiles = [name for name in _QUANTILES if name in self._names]
        if quantiles:
            shares = tuple(_QUANTILES[name] for name in quantiles)
            values = torch.cat([sketch.quantiles(shares) for sketch in tokens], dim=1)
            everything.update(zip(quantiles, values, strict=True))
        if "sentence_median" in self._names:
            everything["sentence_median"] = torch.cat([sketch.quantiles((0.5,))[0] for sketch in sentences])
        found = {name: everything[name] for name in self._names}
        self._check_finite(found)
        return {
            **found,
            "rank_error.tokens": torch.tensor(tokens[0].rank_error / max(1, tokens[0].items)),
            "rank_error.sentences": torch.tensor(sentences[0].rank_error / max(1, sentences[0].items)),
        }

    def _of(self, layer: int, device: torch.device) -> _Layer:
        if layer not in self._by_layer:
            self._by_layer[layer] = _Layer(self._index[layer], device)
        return self._by_layer[layer]

    def _wants(self, *names: str) -> bool:
        return not set(names).isdisjoint(self._names)

    def _check_finite(self, found: Found) -> None:
        for values in found.values():
            finite = values.isfinite().numpy()
            if not finite.all():
                layer = int(self._neurons.layer[~finite].min())
                raise ModelError(
                    f"activations in layer {layer} on texts in {self._language} are infinite: try --dtype float32"
                )

"""Statistics of chosen neurons' activations in their own language: what ``set`` and ``add`` write.

| name | of a neuron, over the tokens of its language's texts that were counted |
| --- | --- |
| max | the highest activation |
| mean | the mean activation |
| sentence_max | the highest of the sentences' mean activations |
| sentence_median | the median of the sentences' mean activations (of an even number the mean of the middle
two) |

A sentence is a document of the corpus. The last two are p_max and p_median of Rahmanisa et al. 2025
(arXiv 2507.22581).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.tokens import Batch
from lm_eval_amplify.neurons.file import LanguageNeurons

STATISTICS = ("max", "mean", "sentence_max", "sentence_median")
"""Names of the statistics that identification writes."""


def with_statistics(activations: Activations, neurons: Mapping[str, LanguageNeurons]) -> dict[str, LanguageNeurons]:
    """Return the neurons of each language with statistics on its texts, besides any others that they have.

    The model runs once over the texts of each language that has neurons. Memory grows with the number of
    sentences times that of neurons of one language, 8 bytes each.

    Raises:
        ModelError: An activation is NaN or infinite; names the layer.
    """
    none = dict.fromkeys(STATISTICS, np.empty(0))
    found = {language: _added(own, none) for language, own in neurons.items() if not len(own)}
    read = activations.read(
        "statistics",
        [language for language, own in neurons.items() if len(own)],
        lambda language: _Sentences(neurons[language], activations.texts[language].documents),
    )
    for language, sentences in read:
        found[language] = _added(neurons[language], sentences.statistics(language))
    return {language: found[language] for language in neurons}


def _added(own: LanguageNeurons, values: Mapping[str, NDArray[np.float64]]) -> LanguageNeurons:
    statistics = {name: value.astype(np.float32) for name, value in values.items()}
    return replace(own, statistics=dict(sorted({**own.statistics, **statistics}.items())))


class _Sentences:
    """Sums of the activations of a language's neurons by sentence, and their maxima, in float64."""

    def __init__(self, neurons: LanguageNeurons, sentences: int) -> None:
        self._neurons = neurons
        self._index = {
            layer: torch.from_numpy(neurons.index[neurons.layer == layer].astype(np.int64))
            for layer in np.unique(neurons.layer).tolist()
        }
        self.layers = tuple(self._index)
        self._seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._max = np.full(len(neurons), -np.inf)
        self._sums = np.zeros((sentences, len(neurons)))
        self._tokens = np.zeros(sentences, np.int64)

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        self._index[layer] = index = self._index[layer].to(activation.device)
        exact = torch.float32 if activation.device.type == "mps" else torch.float64  # Metal has no float64
        own = activation.index_select(1, index).to(exact)
        counts = is_counted.unsqueeze(1)
        # Not a product with the mask: an activation at a padding position may be no number.
        self._seen[layer] = (
            torch.where(counts, own, 0),
            torch.where(counts, own, -torch.inf).amax(0, keepdim=True),
        )

    def end_batch(self, batch: Batch) -> None:
        rows, length = batch.ids.shape
        device = self._seen[self.layers[-1]][0].device
        # Neurons are sorted by layer: layer beside layer they come in their order. One transfer for all of
        # them.
        by_layer = [
            torch.cat([values.view(rows, length, -1).sum(1), maxima]).to(device)
            for values, maxima in (self._seen[layer] for layer in self.layers)
        ]
        found = torch.cat(by_layer, dim=1).cpu().numpy()
        np.add.at(self._sums, batch.document, found[:-1])
        np.add.at(self._tokens, batch.document, batch.is_counted.sum(1))
        np.maximum(self._max, found[-1], out=self._max)

    def statistics(self, language: str) -> dict[str, NDArray[np.float64]]:
        has_tokens = self._tokens > 0
        means = self._sums[has_tokens] / self._tokens[has_tokens, None]
        found = {
            "max": self._max,
            "mean": self._sums.sum(0) / self._tokens.sum(),
            "sentence_max": means.max(0),
            "sentence_median": np.median(means, axis=0),
        }
        for values in found.values():
            if not np.isfinite(values).all():
                layer = int(self._neurons.layer[~np.isfinite(values)].min())
                raise ModelError(
                    f"activations in layer {layer} on texts in {language} are infinite: try --dtype float32"
                )
        return found

"""Language-activated neurons: those that a language's texts activate, whatever other languages do.

The baseline of Rahmanisa et al. 2025 (arXiv 2507.22581) to language-specific neurons. A neuron is active in a sentence
if its mean activation over the sentence's tokens is above zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.keeping import Found
from lm_eval_amplify.identify.method import check_any
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.identify.sentences import SentenceMeans
from lm_eval_amplify.identify.tokens import Batch
from lm_eval_amplify.neurons.file import LanguageNeurons


@dataclass(frozen=True)
class Activated:
    """The method ``activation``; validated on construction.

    Attributes:
        top_k: Choose so many neurons of each language, those of the highest mean activation over its tokens, of equal
            ones those of lower (layer, index). None: choose the neurons that are active in all its sentences.

    Raises:
        IdentificationError: On construction; names the parameter.
    """

    top_k: int | None = None

    name: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise IdentificationError(f"top_k={self.top_k}: expected 1 or more")

    @property
    def parameters(self) -> dict[str, Any]:
        """``top_k``."""
        return {"top_k": self.top_k}

    def check(self, languages: Sequence[str]) -> None:
        """Check that there is a language.

        Raises:
            IdentificationError: There is none.
        """
        check_any(languages)

    def select(self, activations: Activations) -> Mapping[str, LanguageNeurons]:
        """Return each language's neurons.

        Raises:
            IdentificationError: The model has fewer neurons than ``top_k``.
        """
        number = activations.network.num_layers * activations.network.d_ff
        if self.top_k is not None and self.top_k > number:
            raise IdentificationError(f"top_k={self.top_k}: expected no more than the model's neurons, {number}")
        read = activations.read("activity", activations.texts, lambda _language: _Activity(activations.network))
        return {language: neurons_at(self._chosen(found)) for language, found in read}

    def _chosen(self, found: Found) -> NDArray[np.bool_]:
        """Which neurons, ``[num_layers, d_ff]``."""
        if self.top_k is None:
            active: NDArray[np.bool_] = (found["active"] == found["sentences"]).numpy()
            return active
        sums = found["sums"].numpy()
        chosen = np.zeros(sums.size, np.bool_)
        chosen[np.argsort(-sums.ravel(), kind="stable")[: self.top_k]] = True
        return chosen.reshape(sums.shape)


def neurons_at(chosen: NDArray[np.bool_]) -> LanguageNeurons:
    """Return the neurons at the true places of ``[num_layers, d_ff]``."""
    layer, index = np.nonzero(chosen)
    return LanguageNeurons(layer.astype(np.int32), index.astype(np.int32))


class _Activity:
    """Sums every neuron's activations, and counts the sentences that it is active in."""

    key = ""

    def __init__(self, network: Network) -> None:
        self.layers = range(network.num_layers)
        self._d_ff = network.d_ff
        self._row_sums: dict[int, torch.Tensor] = {}
        self._means = {layer: SentenceMeans() for layer in self.layers}
        self._sums: dict[int, torch.Tensor] = {}
        self._active: dict[int, torch.Tensor] = {}
        self._sentences = 0

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        # Not a product with the mask: an activation at a padding position may be no number.
        own = torch.where(is_counted.unsqueeze(-1), activation.view(*is_counted.shape, -1), 0)
        self._row_sums[layer] = own.sum(1, dtype=torch.float32)

    def end_batch(self, batch: Batch) -> None:
        for layer, row_sums in self._row_sums.items():
            exact = torch.float32 if row_sums.device.type == "mps" else torch.float64  # Metal has no float64
            means = self._means[layer].completed(row_sums, batch)
            active, sums = (means > 0).sum(0), row_sums.sum(0, dtype=exact)
            if layer in self._sums:
                self._active[layer] += active
                self._sums[layer] += sums
            else:
                self._active[layer], self._sums[layer] = active, sums
            if layer == 0:
                self._sentences += len(means)

    def part(self) -> Found:
        def over_layers(values: dict[int, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
            none = torch.zeros(self._d_ff, dtype=dtype)
            return torch.stack([values.get(layer, none).cpu().to(dtype) for layer in self.layers])

        return {
            "active": over_layers(self._active, torch.int64),
            "sums": over_layers(self._sums, torch.float64),
            "sentences": torch.tensor(self._sentences),
        }

    def found(self, parts: Sequence[Any]) -> Found:
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in ("active", "sums", "sentences")}

"""Language activation probability entropy (LAPE): which neurons are active in few languages only.

Source: Tang et al. 2024, "Language-Specific Neurons: The Key to Multilingual Capabilities in Large Language
Models" (arXiv 2402.16438), section 2.2; the rules for quantiles are those of its published code. With p[l]
the share of language l's tokens at which a neuron is active, and q = p / sum(p), its entropy is -sum over l
of q[l] * ln q[l], from 0 (one language) to ln(languages) (all alike).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.neurons.file import LanguageNeurons

if TYPE_CHECKING:
    from lm_eval_amplify.identify.activations import Activations

_DECIMALS = 10
"""Entropies are compared to so many: what differs by rounding errors only is equal, on every machine."""


@dataclass(frozen=True)
class Lape:
    """The method ``lape``; validated on construction.

    Attributes:
        top_rate: Share of all neurons that is chosen, those of lowest entropy; above 0, up to 1.
        filter_rate: A neuron is a candidate if its probability in some language exceeds this quantile of all
            probabilities; between 0 and 1.
        activation_bar_ratio: A chosen neuron is of the languages in which its probability exceeds this
            quantile of all probabilities; between 0 and 1.

    Raises:
        IdentificationError: On construction; names the parameter.
    """

    top_rate: float = 0.01
    filter_rate: float = 0.95
    activation_bar_ratio: float = 0.95

    name: ClassVar[str] = "lape"

    def __post_init__(self) -> None:
        if not 0 < self.top_rate <= 1:
            raise IdentificationError(f"top_rate={self.top_rate}: expected a share above 0, up to 1, such as 0.01")
        for rate in ("filter_rate", "activation_bar_ratio"):
            if not 0 < getattr(self, rate) < 1:
                raise IdentificationError(
                    f"{rate}={getattr(self, rate)}: expected a share above 0 and below 1, such as 0.95"
                )

    @property
    def parameters(self) -> dict[str, Any]:
        """The three rates."""
        return asdict(self)

    def check(self, languages: Sequence[str]) -> None:
        """Check that there are languages to compare.

        Raises:
            IdentificationError: There are fewer than two.
        """
        if len(languages) < 2:
            raise IdentificationError(
                f"LAPE compares languages: give two or more, not {', '.join(languages) or 'none'}"
            )

    def select(self, activations: Activations) -> Mapping[str, LanguageNeurons]:
        """Return each language's neurons."""
        return self.choose(activations.counts())

    def choose(self, counts: Counts) -> dict[str, LanguageNeurons]:
        """Return the neurons of each language by its counts.

        The round(top_rate * neurons) candidates of lowest entropy are chosen, or all if they are fewer; of
        equal ones at the cut those of lower (layer, index). A chosen neuron may be of several languages, or,
        with an ``activation_bar_ratio`` above ``filter_rate``, of none.
        """
        probabilities = counts.probabilities
        entropies = entropy(probabilities)
        least = quantile(probabilities, self.filter_rate)
        entropies[~(probabilities > least).any(axis=-1)] = np.inf
        flat = entropies.ravel()
        number = min(round(flat.size * self.top_rate), int(np.isfinite(flat).sum()))
        # A stable sort of what lies in the order of (layer, index) is the rule for ties.
        chosen = np.sort(np.argsort(flat, kind="stable")[:number])
        layer, index = np.divmod(chosen, probabilities.shape[1])
        is_of = probabilities[layer, index] > quantile(probabilities, self.activation_bar_ratio)
        return {
            language: LanguageNeurons(
                layer[is_of[:, position]].astype(np.int32), index[is_of[:, position]].astype(np.int32)
            )
            for position, language in enumerate(counts.languages)
        }


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entropy of each neuron's activation over the languages, in nats.

    Args:
        probabilities: ``[num_layers, d_ff, languages]``.

    Returns:
        ``[num_layers, d_ff]``, rounded to 10 decimals; infinite for a neuron that is never active.
    """
    # Sorted, so that the sums, to the last bit, do not depend on the order of the languages.
    shares = np.sort(probabilities, axis=-1)
    total = shares.sum(axis=-1, keepdims=True)
    np.divide(shares, total, out=shares, where=total > 0)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    nats: NDArray[np.float64] = np.round(-(shares * logarithms).sum(axis=-1), _DECIMALS)
    nats[total[..., 0] == 0] = np.inf
    return nats


def quantile(probabilities: NDArray[np.float64], rate: float) -> float:
    """Return the k-th smallest of all probabilities, k = round(number * rate) from 1, as the reference."""
    flat = probabilities.ravel()
    position = max(round(flat.size * rate), 1) - 1
    return float(np.partition(flat, position)[position])

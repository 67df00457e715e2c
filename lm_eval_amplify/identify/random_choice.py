"""Random neurons, chosen without looking at any text: the plainest control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.active import neurons_at
from lm_eval_amplify.identify.method import check_any
from lm_eval_amplify.neurons.file import LanguageNeurons


@dataclass(frozen=True)
class RandomChoice:
    """The method ``random``; validated on construction.

    A control that has as many neurons per language and layer as a given file, and none of its, is
    :func:`lm_eval_amplify.neurons.random_control.random_control`.

    Attributes:
        top_rate: Share of all neurons that each language gets, drawn without replacement; above 0, up to 1.
        seed: 0 or above. What a language gets depends on it, the language's name and the model's shape alone.

    Raises:
        IdentificationError: On construction; names the parameter.
    """

    top_rate: float = 0.01
    seed: int = 0

    name: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        if not 0 < self.top_rate <= 1:
            raise IdentificationError(f"top_rate={self.top_rate}: expected a share above 0, up to 1, such as 0.01")
        if self.seed < 0:
            raise IdentificationError(f"seed={self.seed}: expected 0 or above")

    @property
    def parameters(self) -> dict[str, Any]:
        """The share and the seed."""
        return asdict(self)

    def check(self, languages: Sequence[str]) -> None:
        """Check that there is a language.

        Raises:
            IdentificationError: There is none.
        """
        check_any(languages)

    def select(self, activations: Activations) -> Mapping[str, LanguageNeurons]:
        """Return each language's neurons; the model does not run."""
        shape = (activations.network.num_layers, activations.network.d_ff)
        return {language: self._draw(language, shape) for language in activations.texts}

    def _draw(self, language: str, shape: tuple[int, int]) -> LanguageNeurons:
        # The smallest of raw random numbers: numpy promises the same stream in every version, but not the
        # same draw.
        stream = np.random.PCG64(np.random.SeedSequence([self.seed, *language.encode()]))
        number = shape[0] * shape[1]
        chosen = np.zeros(number, np.bool_)
        chosen[np.argsort(stream.random_raw(number), kind="stable")[: round(number * self.top_rate)]] = True
        return neurons_at(chosen.reshape(shape))

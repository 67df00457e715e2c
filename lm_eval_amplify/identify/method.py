"""What a way to choose neurons is. Another one is one more file with a class of this form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.neurons.file import LanguageNeurons


class Method(Protocol):
    """Chooses the neurons of each language; a frozen value, validated on construction."""

    @property
    def name(self) -> str:
        """Recorded in the neuron file as ``method``."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Recorded in the neuron file: everything that the choice depends on besides model and texts."""

    def check(self, languages: Sequence[str]) -> None:
        """Check, before anything runs, that the method can do with these languages.

        Raises:
            IdentificationError: It cannot.
        """

    def select(self, activations: Activations) -> Mapping[str, LanguageNeurons]:
        """Return each language's neurons, without statistics; an empty entry for a language of none."""


def check_any(languages: Sequence[str]) -> None:
    """Check that there is a language, all that a method needs which looks at one at a time.

    Raises:
        IdentificationError: There is none.
    """
    if not languages:
        raise IdentificationError("give a language or more, not none")

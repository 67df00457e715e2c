"""Find, amplify and measure language-specific neurons with EleutherAI's lm-evaluation-harness.

Importing this package imports nothing heavy: the names below load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm_eval_amplify.amplifier import Amplifier
    from lm_eval_amplify.amplifying import amplify
    from lm_eval_amplify.baking import bake
    from lm_eval_amplify.errors import AmplifyError
    from lm_eval_amplify.intervention import Intervention
    from lm_eval_amplify.langid import identify_language
    from lm_eval_amplify.neurons import NeuronFile, read_neurons, write_neurons
    from lm_eval_amplify.presets import make_intervention
    from lm_eval_amplify.steering import Steering, lss

_HOME = {
    "AmplifyError": "errors",
    "Amplifier": "amplifier",
    "Intervention": "intervention",
    "NeuronFile": "neurons",
    "Steering": "steering",
    "amplify": "amplifying",
    "bake": "baking",
    "identify_language": "langid",
    "lss": "steering",
    "make_intervention": "presets",
    "read_neurons": "neurons",
    "write_neurons": "neurons",
}

__all__ = [
    "Amplifier",
    "AmplifyError",
    "Intervention",
    "NeuronFile",
    "Steering",
    "amplify",
    "bake",
    "identify_language",
    "lss",
    "make_intervention",
    "read_neurons",
    "write_neurons",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("lm-eval-amplify")
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

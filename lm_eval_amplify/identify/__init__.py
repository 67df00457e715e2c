"""Identification: from a model and texts in several languages to a neuron file.

corpus -> tokens -> activations (a pass of the network) -> method (LAPE) -> statistics (a second pass)
"""

from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.corpus import Corpus, TextFolder, open_corpus
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.lape import Lape
from lm_eval_amplify.identify.method import Method
from lm_eval_amplify.identify.run import Texts, add_statistics, identify, random_control

__all__ = [
    "Activations",
    "Corpus",
    "Counts",
    "Lape",
    "Method",
    "TextFolder",
    "Texts",
    "add_statistics",
    "identify",
    "open_corpus",
    "random_control",
]

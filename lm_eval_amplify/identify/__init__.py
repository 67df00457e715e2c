"""Identification: from a model and texts in several languages to a neuron file.

corpus -> tokens -> activations (a pass of the network) -> method (LAPE) -> statistics (a second pass)
"""

from lm_eval_amplify.identify.activations import Activations
from lm_eval_amplify.identify.active import Activated
from lm_eval_amplify.identify.corpus import Corpus, open_corpus, usual_tokens
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.folders import JsonLinesFolder, TextFolder
from lm_eval_amplify.identify.hub_corpora import Flores, HubDataset
from lm_eval_amplify.identify.keeping import Keeping
from lm_eval_amplify.identify.lape import Lape
from lm_eval_amplify.identify.method import Method
from lm_eval_amplify.identify.methods import make_method
from lm_eval_amplify.identify.random_choice import RandomChoice
from lm_eval_amplify.identify.run import Texts, add_statistics, identify, random_control

__all__ = [
    "Activated",
    "Activations",
    "Corpus",
    "Counts",
    "Flores",
    "HubDataset",
    "JsonLinesFolder",
    "Keeping",
    "Lape",
    "Method",
    "RandomChoice",
    "TextFolder",
    "Texts",
    "add_statistics",
    "identify",
    "make_method",
    "open_corpus",
    "random_control",
    "usual_tokens",
]

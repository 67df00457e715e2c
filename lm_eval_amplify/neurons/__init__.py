"""Neuron files: the value type, its bytes, where a file is found, and foreign formats."""

from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.neurons.locate import locate_neurons, model_of_neurons
from lm_eval_amplify.neurons.serialize import check_writable, read_neurons, write_neurons

__all__ = [
    "LanguageNeurons",
    "Manifest",
    "NeuronFile",
    "check_writable",
    "locate_neurons",
    "model_of_neurons",
    "read_neurons",
    "write_neurons",
]

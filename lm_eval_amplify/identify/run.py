"""From a model, texts and a method to a neuron file with statistics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from lm_eval_amplify.amplifier import check_shape
from lm_eval_amplify.errors import IdentificationError, LanguageError
from lm_eval_amplify.identify.activations import Activations, Report
from lm_eval_amplify.identify.corpus import Corpus
from lm_eval_amplify.identify.keeping import Keeping
from lm_eval_amplify.identify.lape import Lape
from lm_eval_amplify.identify.method import Method
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.identify.statistics import STATISTICS, check_statistics, with_statistics
from lm_eval_amplify.identify.tokens import tokenize
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.neurons.file import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.neurons.random_control import random_control as draw
from lm_eval_amplify.provenance import package_version

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Texts:
    """Which texts the model reads, and how; validated on construction.

    Attributes:
        corpus: Where they are.
        tokens: Exactly so many, the first ones, of each language; special tokens are not among them.
        allow_short: Take what there is of a language that has fewer.
        max_length: Most tokens in a row, or the model's positions if fewer; longer documents are cut into
            several rows.
        batch_size: Rows of full length in a forward pass.
        chat_template: Put each text into the user's turn of the tokenizer's chat template.

    Raises:
        IdentificationError: On construction; names the parameter.
    """

    corpus: Corpus
    tokens: int = 100_000
    allow_short: bool = False
    max_length: int = 512
    batch_size: int = 8
    chat_template: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise IdentificationError(f"{name}={getattr(self, name)}: expected 1 or more")

    def resolve(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the codes of the languages named, all of the corpus if none is; the corpus must have them.

        Raises:
            LanguageError: A name is unknown, or given twice.
            DataError: The corpus has no texts of one.
        """
        languages = tuple(canonical_language(name) for name in names) or self.corpus.languages
        twice = sorted({language for language in languages if languages.count(language) > 1})
        if twice:
            raise LanguageError(f"language {', '.join(twice)} is given twice: {', '.join(names)}")
        for language in languages:
            self.corpus.check(language)
        return languages

    def fitted_to(self, network: Network) -> Texts:
        """Return the same with rows no longer than the model has positions."""
        return replace(self, max_length=network.fitting_length(self.max_length))

    def activations_of(
        self,
        network: Network,
        tokenizer: Any,
        languages: Sequence[str],
        report: Report | None,
        keeping: Keeping | None = None,
    ) -> Activations:
        """Tokenize the texts and return the model's activations on them, yet to be read.

        Raises:
            DataError: The texts are unreadable or too few.
        """
        texts = {}
        for done, language in enumerate(languages, start=1):
            texts[language] = tokenize(
                self.corpus,
                language,
                tokenizer,
                self.tokens,
                allow_short=self.allow_short,
                chat_template=self.chat_template,
            )
            if report is not None:
                report("tokenizing", done * self.tokens, len(languages) * self.tokens)
        return Activations(
            network,
            texts,
            max_length=self.max_length,
            batch_size=self.batch_size,
            report=report,
            keeping=keeping,
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What a result depends on: not the batch size."""
        return {
            "tokens": self.tokens,
            "allow_short": self.allow_short,
            "max_length": self.max_length,
            "chat_template": self.chat_template,
        }


def identify(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    languages: Sequence[str] = (),
    *,
    method: Method | None = None,
    statistics: Sequence[str] = STATISTICS,
    model_name: str | None = None,
    report: Report | None = None,
    keeping: Keeping | None = None,
) -> NeuronFile:
    """Find the neurons of each language in a model, and their statistics.

    Args:
        model: A decoder-only Hugging Face model, on whatever devices.
        tokenizer: Its tokenizer.
        texts: Which texts to read.
        languages: By any name; all of the corpus by default. Their order is the file's.
        method: How to choose; LAPE with the reference's rates by default.
        statistics: Names of those to add; see :mod:`lm_eval_amplify.identify.statistics`.
        model_name: Name to record; by default the one that the model was loaded by.
        report: Told about progress.
        keeping: Keeps what is found of each language, and has what an interrupted run found.

    Processes that were started together each read a share of every text; all return the same.

    Raises:
        AmplifyError: The model, the texts or the languages do not do; what can be seen before the model runs
            is.
    """
    method = method or Lape()
    names = check_statistics(statistics)
    codes = texts.resolve(languages)
    method.check(codes)
    network = Network(model)
    texts = texts.fitted_to(network)
    activations = texts.activations_of(network, tokenizer, codes, report, keeping)
    chosen = method.select(activations)
    _warn_of_none(chosen)
    name = model_name or _name_of(model)
    manifest = Manifest(
        model=name,
        revision=getattr(getattr(model, "config", None), "_commit_hash", None),
        architecture=network.architecture,
        num_layers=network.num_layers,
        intermediate_size=network.d_ff,
        method=method.name,
        parameters={**method.parameters, **texts.parameters, "dtype": network.dtype},
        corpus=texts.corpus.name,
        tokens=activations.tokens,
        package_version=package_version(),
        languages=codes,
    )
    return _with_statistics(NeuronFile(manifest, chosen), activations, texts, name, names)


def add_statistics(
    neurons: NeuronFile,
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    *,
    statistics: Sequence[str] = STATISTICS,
    report: Report | None = None,
    keeping: Keeping | None = None,
) -> NeuronFile:
    """Return a neuron file with statistics of its neurons' activations on texts in all its languages.

    What ``keeping`` has of an interrupted run is not read again.

    Raises:
        NeuronFileError: The file is of a model of another shape.
        AmplifyError: The model, the texts or the languages do not do.
    """
    names = check_statistics(statistics)
    texts.resolve(neurons.languages)
    network = Network(model)
    texts = texts.fitted_to(network)
    check_shape(neurons, network.blocks)
    recorded, name = neurons.manifest.model, _name_of(model)
    if recorded and name and recorded != name:
        _logger.warning("the neurons are of %s, their statistics of %s; both are recorded", recorded, name)
    activations = texts.activations_of(network, tokenizer, neurons.languages, report, keeping)
    return _with_statistics(neurons, activations, texts, name, names)


def random_control(
    neurons: NeuronFile,
    seed: int,
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    *,
    report: Report | None = None,
) -> NeuronFile:
    """Return a file with random neurons instead, as many per language and layer, with statistics.

    See :func:`lm_eval_amplify.neurons.random_control.random_control` for the drawing.

    Raises:
        NeuronFileError: The file is of a model of another shape, or leaves too few neurons to draw from.
        AmplifyError: The model, the texts or the languages do not do.
    """
    blocks = Network(model).blocks
    check_shape(neurons, blocks)
    drawn = draw(neurons, seed, intermediate_size=blocks[0].d_ff)
    return add_statistics(drawn, model, tokenizer, texts, report=report)


def _with_statistics(
    neurons: NeuronFile, activations: Activations, texts: Texts, model_name: str | None, names: Sequence[str]
) -> NeuronFile:
    if not names:
        return neurons
    found = with_statistics(activations, neurons.neurons, names)
    origin = {
        "model": model_name,
        **texts.parameters,
        "corpus": texts.corpus.name,
        "dtype": activations.network.dtype,
        "tokens": activations.tokens,
        "sentences": {language: text.documents for language, text in activations.texts.items()},
        "rank_error": found.rank_error,
    }
    manifest = neurons.manifest.model_copy(update={"statistics_of": origin})
    return NeuronFile(manifest, found.neurons)


def _name_of(model: nn.Module) -> str | None:
    """The name that a model was loaded by."""
    return getattr(getattr(model, "config", None), "name_or_path", None) or None


def _warn_of_none(chosen: Mapping[str, LanguageNeurons]) -> None:
    none = [language for language, own in chosen.items() if not len(own)]
    if none:
        _logger.warning("no neuron was chosen for %s: nothing there to amplify", ", ".join(none))

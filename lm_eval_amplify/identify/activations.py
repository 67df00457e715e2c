"""Passes of a model over texts in several languages, and the one that counts active neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.identify.tokens import Batch, TokenizedText, batches

Report: TypeAlias = Callable[[str, int, int], None]
"""Gets a stage's name, the tokens done in it, and the tokens that it has in all."""


class Observer(Protocol):
    """Sees the activations of one language, batch by batch, and sums up what it wants to know of them."""

    @property
    def layers(self) -> Iterable[int]:
        """The layers that it wants to see."""

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        """Get activations of a layer, ``[batch * pos, d_ff]``, and which rows count, ``[batch * pos]``."""

    def end_batch(self, batch: Batch) -> None:
        """Get the batch whose activations were seen last; the device has just been waited for."""


AnyObserver = TypeVar("AnyObserver", bound=Observer)


class Activations:
    """What a method chooses neurons by, and what statistics are taken of.

    Args:
        network: The model.
        texts: The tokens of each language, in order.
        max_length: Most tokens in a row, special tokens included; no more than the model has positions.
        batch_size: Rows of ``max_length`` tokens in a forward pass; of shorter rows as many more. It changes
            speed and memory, not what is counted.
        report: Told about progress after each batch.

    Raises:
        IdentificationError: ``max_length`` or ``batch_size`` does not do.
    """

    def __init__(
        self,
        network: Network,
        texts: Mapping[str, TokenizedText],
        *,
        max_length: int = 512,
        batch_size: int = 8,
        report: Report | None = None,
    ) -> None:
        if batch_size < 1:
            raise IdentificationError(f"batch_size={batch_size}: expected 1 or more")
        prefix = max((len(text.special.prefix) for text in texts.values()), default=0)
        if max_length <= prefix:
            raise IdentificationError(
                f"max_length={max_length}: expected more than {prefix}, the special tokens before a text"
            )
        self.network = network
        self.texts = texts
        self._max_length = max_length
        self._batch_tokens = max_length * batch_size
        self._report = report or (lambda _stage, _done, _total: None)

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens that count, by language."""
        return {language: text.tokens for language, text in self.texts.items()}

    def read(
        self, stage: str, languages: Iterable[str], observer_of: Callable[[str], AnyObserver]
    ) -> Iterator[tuple[str, AnyObserver]]:
        """Run the model over texts; yield each language with its observer, which has then seen all of them.

        Args:
            stage: Name for the progress report.
            languages: Languages of ``texts``.
            observer_of: Makes the observer of a language.

        Raises:
            ModelError: An activation is NaN.
        """
        chosen = list(languages)
        total = sum(self.texts[language].tokens for language in chosen)
        done = 0
        for language in chosen:
            observer = observer_of(language)
            with self.network.looking({layer: partial(observer.see, layer) for layer in observer.layers}):
                for batch in batches(
                    self.texts[language], max_length=self._max_length, batch_tokens=self._batch_tokens
                ):
                    self.network.run(batch)
                    observer.end_batch(batch)
                    done += int(batch.is_counted.sum())
                    self._report(stage, done, total)
            yield language, observer

    def counts(self) -> Counts:
        """Return at how many tokens each neuron's activation is above zero, in each language.

        Raises:
            ModelError: An activation is NaN.
        """
        read = self.read("counting", self.texts, lambda _language: _Counter(self.network))
        return Counts.join([counter.counts(language) for language, counter in read])


class _Counter:
    """Counts positive activations, each layer's on the layer's device: a batch costs no transfer."""

    def __init__(self, network: Network) -> None:
        self.layers = range(network.num_layers)
        self._sums: dict[int, torch.Tensor] = {}
        self._tokens = 0

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        # A product with the mask counts about eight times as fast as summing booleans, and needs no masked
        # copy. Its factors are 0 and 1, exact in any type, and float32 holds sums up to 2 ** 24, far more
        # than a batch's tokens.
        over_zero = torch.empty(activation.shape, dtype=torch.float32, device=activation.device)
        torch.gt(activation, 0, out=over_zero)
        number = (is_counted.to(torch.float32) @ over_zero).to(torch.int64)
        self._sums[layer] = self._sums[layer].add_(number) if layer in self._sums else number

    def end_batch(self, batch: Batch) -> None:
        self._tokens += int(batch.is_counted.sum())

    def counts(self, language: str) -> Counts:
        over_zero: NDArray[np.int64] = np.stack([self._sums[layer].cpu().numpy() for layer in self.layers])
        return Counts((language,), over_zero[:, :, None], np.array([self._tokens], np.int64))

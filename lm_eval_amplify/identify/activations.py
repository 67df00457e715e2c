"""Passes of a model over texts in several languages, and the one that counts active neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.keeping import Found, Keeping
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.identify.tokens import Batch, TokenizedText, batches
from lm_eval_amplify.processes import Processes

Report: TypeAlias = Callable[[str, int, int], None]
"""Gets a stage's name, the tokens done in it, and the tokens that it has in all."""


class Observer(Protocol):
    """Sees the activations of one language, batch by batch, and sums up what it wants to know of them."""

    @property
    def layers(self) -> Iterable[int]:
        """The layers that it wants to see."""

    @property
    def key(self) -> str:
        """What its findings depend on besides model and texts."""

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        """Get activations of a layer, ``[batch * pos, d_ff]``, and which positions count, ``[batch, pos]``."""

    def end_batch(self, batch: Batch) -> None:
        """Get the batch whose activations were seen last; the device has just been waited for."""

    def part(self) -> Any:
        """Return what it saw: something that can be sent to another process."""

    def found(self, parts: Sequence[Any]) -> Found:
        """Return its findings from the parts of all processes, in their order."""


class Activations:
    """What a method chooses neurons by, and what statistics are taken of.

    Args:
        network: The model.
        texts: The tokens of each language, in order.
        max_length: Most tokens in a row, special tokens included; no more than the model has positions.
        batch_size: Rows of ``max_length`` tokens in a forward pass; of shorter rows as many more. It changes
            speed and memory, not what is counted.
        report: Told about progress after each batch.
        keeping: Keeps what is found of each language, and has what an interrupted run found.
        processes: Each reads its share of every language's texts.

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
        keeping: Keeping | None = None,
        processes: Processes | None = None,
    ) -> None:
        if batch_size < 1:
            raise IdentificationError(f"batch_size={batch_size}: expected 1 or more")
        prefix = max((len(text.prefix) for text in texts.values()), default=0)
        if max_length <= prefix:
            raise IdentificationError(
                f"max_length={max_length}: expected more than {prefix}, the special tokens before a text"
            )
        self.network = network
        self.texts = texts
        self._max_length = max_length
        self._batch_tokens = max_length * batch_size
        self._report = report or (lambda _stage, _done, _total: None)
        self._keeping = keeping
        self._processes = processes or Processes()

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens that count, by language."""
        return {language: text.tokens for language, text in self.texts.items()}

    def read(
        self, stage: str, languages: Iterable[str], observer_of: Callable[[str], Observer]
    ) -> Iterator[tuple[str, Found]]:
        """Run the model over texts; yield each language with what its observer found in all of them.

        Args:
            stage: Name for the progress report, and of what is kept.
            languages: Languages of ``texts``.
            observer_of: Makes the observer of a language.

        Raises:
            ModelError: An activation is NaN.
            DataError: What was found cannot be kept.
        """
        chosen = list(languages)
        total = sum(self.texts[language].tokens for language in chosen)
        done = 0
        for language in chosen:
            observer = observer_of(language)
            key = f"{stage} {self.texts[language].digest} {self._max_length} {observer.key}"
            found = self._kept(stage, language, key)
            if found is None:
                with torch.inference_mode():
                    self._show(observer, language, stage, done, total)
                    found = observer.found(self._processes.gather(observer.part()))
                if self._keeping is not None and self._processes.is_first:
                    self._keeping.put(stage, language, key, found)
            done += self.texts[language].tokens
            self._report(stage, done, total)
            yield language, found

    def counts(self) -> Counts:
        """Return at how many tokens each neuron's activation is above zero, in each language.

        Raises:
            ModelError: An activation is NaN.
            DataError: The counts cannot be kept.
        """
        read = self.read("counts", self.texts, lambda _language: _Counter(self.network))
        return Counts.join([counts_from(language, found) for language, found in read])

    def _kept(self, stage: str, language: str, key: str) -> Found | None:
        if self._keeping is None:
            return None
        # All processes must know of it, or those that do not would wait for the others' parts.
        return self._processes.of_first(self._keeping.get(stage, language, key) if self._processes.is_first else None)

    def _show(self, observer: Observer, language: str, stage: str, done: int, total: int) -> None:
        """Show the activations of this process's share of a language's texts."""
        text, processes = self.texts[language], self._processes
        read = 0
        with self.network.looking({layer: partial(observer.see, layer) for layer in observer.layers}):
            for batch in batches(
                text,
                max_length=self._max_length,
                batch_tokens=self._batch_tokens,
                share=(processes.rank, processes.number),
            ):
                self.network.run(batch.ids, batch.is_counted)
                observer.end_batch(batch)
                read += int(batch.is_counted.sum())
                self._report(stage, done + min(read * processes.number, text.tokens), total)


def counts_from(language: str, found: Found) -> Counts:
    """Return the counts of one language from what was found, or kept, of it."""
    over_zero = found["over_zero"].to(torch.int64).numpy()[:, :, None]
    return Counts((language,), over_zero, np.array([int(found["n"])], np.int64))


class _Counter:
    """Counts positive activations, each layer's on the layer's device: a batch costs no transfer."""

    key = ""

    def __init__(self, network: Network) -> None:
        self.layers = range(network.num_layers)
        self._d_ff = network.d_ff
        self._sums: dict[int, torch.Tensor] = {}
        self._over_zero: dict[torch.device, torch.Tensor] = {}
        self._tokens = 0

    def see(self, layer: int, activation: torch.Tensor, is_counted: torch.Tensor) -> None:
        # A product with the mask counts about eight times as fast as summing booleans, and needs no masked
        # copy. Its factors are 0 and 1, exact in any type, and float32 holds sums up to 2 ** 24, far more
        # than a batch's tokens.
        room = self._over_zero.get(activation.device)
        if room is None or room.numel() < activation.numel():
            # One for all layers: memory fresh from the system costs more than the comparison.
            room = torch.empty(activation.numel(), dtype=torch.float32, device=activation.device)
            self._over_zero[activation.device] = room
        over_zero = room[: activation.numel()].view(activation.shape)
        torch.gt(activation, 0, out=over_zero)
        number = (is_counted.flatten().to(torch.float32) @ over_zero).to(torch.int64)
        self._sums[layer] = self._sums[layer].add_(number) if layer in self._sums else number

    def end_batch(self, batch: Batch) -> None:
        self._tokens += int(batch.is_counted.sum())

    def part(self) -> Found:
        none = torch.zeros(self._d_ff, dtype=torch.int64)
        over_zero = torch.stack([self._sums.get(layer, none).cpu() for layer in self.layers])
        return {"n": torch.tensor(self._tokens), "over_zero": over_zero}

    def found(self, parts: Sequence[Found]) -> Found:
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in ("n", "over_zero")}

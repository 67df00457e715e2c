"""How often each neuron was active in each language: a value that adds up over shards of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import IdentificationError


@dataclass(frozen=True, eq=False)
class Counts:
    """Numbers of tokens at which each neuron's activation is above zero; validated on construction.

    ``a + b`` are the counts of two shards of the same languages' texts together.

    Attributes:
        languages: The languages in order.
        over_zero: Tokens with an activation > 0, int64 ``[num_layers, d_ff, languages]``.
        tokens: Tokens read, int64 ``[languages]``.

    Raises:
        IdentificationError: On construction or addition; names the part, what came and what was expected.
    """

    languages: tuple[str, ...]
    over_zero: NDArray[np.int64]
    tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        number = len(self.languages)
        if self.over_zero.ndim != 3 or self.over_zero.shape[2] != number or self.tokens.shape != (number,):
            raise IdentificationError(
                f"counts of {number} languages: over_zero is {list(self.over_zero.shape)} and tokens "
                f"{list(self.tokens.shape)}, expected [num_layers, d_ff, {number}] and [{number}]"
            )
        if self.over_zero.dtype.kind not in "iu" or self.tokens.dtype.kind not in "iu":
            raise IdentificationError(
                f"counts are {self.over_zero.dtype} and tokens {self.tokens.dtype}, expected whole numbers"
            )
        for position, language in enumerate(self.languages):
            own, read = self.over_zero[:, :, position], int(self.tokens[position])
            if own.min(initial=0) < 0 or own.max(initial=0) > read:
                raise IdentificationError(
                    f"counts of {language} lie between {own.min(initial=0)} and {own.max(initial=0)}, "
                    f"expected 0 to its number of tokens, {read}"
                )

    def __add__(self, other: Counts) -> Counts:
        if self.languages != other.languages or self.over_zero.shape != other.over_zero.shape:
            ours, theirs = (f"{', '.join(counts.languages)} {list(counts.over_zero.shape)}" for counts in (self, other))
            raise IdentificationError(
                f"counts of {ours} and of {theirs} cannot be added: languages and shape must be the same"
            )
        return Counts(self.languages, self.over_zero + other.over_zero, self.tokens + other.tokens)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Share of tokens at which each neuron is active, ``[num_layers, d_ff, languages]``, 0 to 1.

        Raises:
            IdentificationError: A language has no tokens, as may be in a shard.
        """
        if not self.tokens.all():
            none = [language for language, read in zip(self.languages, self.tokens, strict=True) if not read]
            raise IdentificationError(f"no tokens were counted of {', '.join(none)}: expected 1 or more")
        return self.over_zero / self.tokens

    @staticmethod
    def join(parts: Sequence[Counts]) -> Counts:
        """Return the counts of several languages, each counted by itself, in the order given.

        Raises:
            IdentificationError: The parts have different layers or d_ff.
        """
        shapes = {part.over_zero.shape[:2] for part in parts}
        if len(shapes) != 1:
            raise IdentificationError(f"counts of different shapes {sorted(shapes)} are not of one model")
        return Counts(
            tuple(language for part in parts for language in part.languages),
            np.concatenate([part.over_zero for part in parts], axis=2),
            np.concatenate([part.tokens for part in parts]),
        )

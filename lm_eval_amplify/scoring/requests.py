"""What is scored: the tokens that a model reads, and those that it should have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import ModelError


@dataclass(frozen=True, eq=False)
class Scored:
    """One request as tokens.

    Attributes:
        tokens: The model's input, int64 ``[length]``: context and continuation without its last token.
        first: The position in it whose logits predict the continuation's first token.
        targets: The continuation, int64 ``[length - first]``: that of position first + k is ``targets[k]``.
    """

    tokens: NDArray[np.int64]
    first: int
    targets: NDArray[np.int64]

    @classmethod
    def cut(cls, context: Sequence[int], continuation: Sequence[int], max_length: int) -> Scored:
        """Return the request as the harness's model has it: what is too long loses tokens on the left.

        >>> Scored.cut([1, 2, 3], [4, 5], 3).tokens.tolist()
        [2, 3, 4]

        Raises:
            ModelError: The context is empty, or the continuation alone is too long.
        """
        if not context:
            raise ModelError("a request's context has no token: expected one at least, such as the tokenizer's first")
        if len(continuation) > max_length:
            raise ModelError(
                f"a continuation of {len(continuation)} tokens is longer than max_length={max_length}: give a larger "
                "max_length if the model allows it, or score it in parts"
            )
        tokens = np.array([*context, *continuation][-(max_length + 1) : -1], np.int64)
        return cls(tokens, len(tokens) - len(continuation), np.array(continuation, np.int64))

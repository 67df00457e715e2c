"""What the model sees around a text, and which tokens are the text's own: special tokens and chat templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import DataError

_PLACEHOLDER = "@@the text@@"
_PROBES = ("a", "1", "ж", "中", "(")
"""A template's tokens are those before all of these: a tokenizer may join its last character with a text's first."""


class Framing(Protocol):
    """How texts become tokens."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens before every text, and before what is left of one that is longer than a row."""

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the tokens of each text, without the prefix; one that does not count as its complement, ``~id``."""


def framing_of(tokenizer: Any, *, chat_template: bool) -> Framing:
    """Return how a tokenizer wants texts: plain, or in the user's turn of its chat template.

    Raises:
        DataError: It has no chat template, or none that texts can be put into.
    """
    return _UserTurn.of(tokenizer) if chat_template else _Plain.of(tokenizer)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return a tokenizer's special tokens; its unknown token is none of them, because it stands for text."""
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = named.pop("unk_token", None)
    ids = set(tokenizer.all_special_ids)
    ids |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if unknown is not None and unknown not in named.values():
        ids.discard(tokenizer.convert_tokens_to_ids(unknown))
    return frozenset(ids)


@dataclass(frozen=True)
class _Plain:
    """Behind the tokens that the tokenizer puts before a text (BOS), as in the model's training.

    Those that it puts behind a text are left off, since a decoder's activations do not depend on what follows.
    """

    tokenizer: Any
    special: frozenset[int]
    prefix: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> _Plain:
        special = special_ids(tokenizer)
        return cls(tokenizer, special, tuple(takewhile(special.__contains__, tokenizer("a")["input_ids"])))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        found = (np.array(ids, np.int64) for ids in encoded["input_ids"])
        return [_marked(ids, ~np.isin(ids, list(self.special))) for ids in found]


@dataclass(frozen=True)
class _UserTurn:
    """In the user's turn of a chat template; only tokens that hold characters of the text count."""

    tokenizer: Any
    special: frozenset[int]
    before: str
    after: str
    prefix: tuple[int, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any) -> _UserTurn:
        if not getattr(tokenizer, "chat_template", None):
            raise DataError("the tokenizer has no chat template: leave --chat-template out")
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("the tokenizer is a slow one, which does not tell a text's tokens from a chat template's")
        turn = [{"role": "user", "content": _PLACEHOLDER}]
        try:
            rendered = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of its own
            raise DataError(f"the tokenizer's chat template fails: {str(error).partition(chr(10))[0]}") from error
        before, found, after = rendered.partition(_PLACEHOLDER)
        if not found or _PLACEHOLDER in after:
            raise DataError("the tokenizer's chat template does not hold the user's text exactly once")
        bare = cls(tokenizer, special_ids(tokenizer), before, after)
        prefixes = [ids[: int(np.argmax(own))].tolist() for ids, own in bare._whole(_PROBES)]
        return cls(tokenizer, bare.special, before, after, _common(prefixes))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        found = []
        for text, (ids, is_own) in zip(texts, self._whole(texts), strict=True):
            if tuple(ids[: len(self.prefix)]) != self.prefix:
                raise DataError(f"the tokenizer joins its chat template with the text {text[:40]!r}")
            behind = int(np.flatnonzero(is_own)[-1]) + 1 if is_own.any() else len(self.prefix)
            marked = _marked(ids, is_own & ~np.isin(ids, list(self.special)))
            found.append(marked[len(self.prefix) : behind])
        return found

    def _whole(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
        """Tokens of texts with the template around them, and which of them hold characters of the text."""
        framed = [f"{self.before}{text}{self.after}" for text in texts]
        encoded = self.tokenizer(
            framed,
            add_special_tokens=False,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        start = len(self.before)
        whole = []
        for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            spans = np.array(offsets, np.int64).reshape(-1, 2)
            is_own = (spans[:, 1] > start) & (spans[:, 0] < start + len(text)) & (spans[:, 1] > spans[:, 0])
            whole.append((np.array(ids, np.int64), is_own))
        return whole


def _common(prefixes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest sequence that all begin with."""
    return tuple(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*prefixes, strict=False)))


def _marked(ids: NDArray[np.int64], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(counts, ids, ~ids)

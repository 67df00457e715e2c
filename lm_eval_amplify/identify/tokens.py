"""Texts as tokens, once: a budget of them per language in a file on disk, and from there in batches.

Every pass over the texts (counting, statistics) reads the same tokens, and a corpus that is too short,
unreadable or not UTF-8 is found out before the model runs for the first time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.identify.corpus import Corpus

_CHARACTERS_AT_ONCE = 1 << 20
"""Documents go to the tokenizer together up to this length: it uses its threads, and memory stays small."""


class SpecialTokens(NamedTuple):
    """The tokens that are no text: never counted."""

    ids: frozenset[int]
    prefix: tuple[int, ...]
    """Those that the tokenizer puts before a text (BOS): the model sees them, as in its training. Those that
    it puts behind a text are left off, since a decoder's activations do not depend on what follows."""

    def among(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some tokens are special, in the shape of ``ids``."""
        return np.isin(ids, list(self.ids))


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """The texts of one language, cut at the budget.

    Attributes:
        language: FLORES-200 code.
        ids: Token ids of all documents in a row, int32 ``[all tokens]``; on disk.
        starts: Where each document begins, and the end, int64 ``[documents + 1]``.
        special: The tokens that do not count: the prefix, which is not in ``ids``, and those that a text
            itself holds.
        tokens: Number of tokens that count.
    """

    language: str
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    special: SpecialTokens
    tokens: int

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1


class Batch(NamedTuple):
    """Windows of documents, padded on the right, for one forward pass."""

    ids: NDArray[np.int64]
    """``[batch, pos]``"""
    is_counted: NDArray[np.bool_]
    """Which positions count: no prefix, padding or special token. ``[batch, pos]``"""
    document: NDArray[np.int64]
    """The document that each row is of, ``[batch]``."""


def special_tokens(tokenizer: Any) -> SpecialTokens:
    """Return a tokenizer's special tokens; its unknown token is none of them, because it stands for text."""
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    unknown = named.pop("unk_token", None)
    ids = set(tokenizer.all_special_ids)
    ids |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if unknown is not None and unknown not in named.values():
        ids.discard(tokenizer.convert_tokens_to_ids(unknown))
    prefix = takewhile(ids.__contains__, tokenizer("a")["input_ids"])
    return SpecialTokens(frozenset(ids), tuple(prefix))


def tokenize(corpus: Corpus, language: str, tokenizer: Any, budget: int, *, allow_short: bool = False) -> TokenizedText:
    """Tokenize the first ``budget`` tokens of a language; the document that exceeds the budget is cut there.

    Args:
        corpus: Where the texts are.
        language: Their language, a FLORES-200 code.
        tokenizer: A Hugging Face tokenizer.
        budget: Tokens to take, special tokens not among them.
        allow_short: Take what there is if it is less.

    Raises:
        DataError: The texts are missing, unreadable or too few, or the disk is full.
    """
    special = special_tokens(tokenizer)
    lengths: list[int] = []
    tokens = 0
    try:
        with tempfile.TemporaryFile(prefix="lm-eval-amplify-") as file:
            for document in _token_ids(corpus.documents(language), tokenizer):
                is_text = ~special.among(document)
                within = np.flatnonzero(is_text.cumsum() == budget - tokens)
                kept = document[: within[0] + 1] if len(within) else document
                tokens += int(is_text[: len(kept)].sum())
                if len(kept):
                    lengths.append(len(kept))
                    file.write(kept.astype(np.int32).tobytes())
                if tokens == budget:
                    break
            _check_budget(corpus, language, tokens, budget, allow_short)
            file.flush()
            # Unnamed on disk already; the mapping keeps the content until it is garbage.
            ids = np.memmap(file, np.int32, "r")
    except OSError as error:
        raise DataError(f"cannot keep the tokens of {language} in {tempfile.gettempdir()}: {error}") from error
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return TokenizedText(language, ids, starts, special, tokens)


def batches(text: TokenizedText, *, max_length: int, batch_tokens: int) -> Iterator[Batch]:
    """Cut documents into windows and put windows of about equal length together, the longest first.

    Longest first, so that a batch that does not fit in memory shows at the start. Padding is on the right
    whatever the tokenizer prefers: a decoder cannot see it from the left of it, so it needs no attention mask
    and shifts no position.

    Args:
        text: The tokens.
        max_length: Most positions in a row, the prefix included; what is left of a longer document becomes a
            further row that begins with the prefix again.
        batch_tokens: Most positions in a batch, padding included.
    """
    rows = _windows(text, max_length - len(text.special.prefix))
    start = 0
    while start < len(rows):
        length = len(text.special.prefix) + rows[start, 2] - rows[start, 1]
        number = max(1, batch_tokens // length)
        yield _batch(text, rows[start : start + number], length)
        start += number


def _token_ids(documents: Iterator[str], tokenizer: Any) -> Iterator[NDArray[np.int64]]:
    group: list[str] = []
    characters = 0
    for document in documents:
        group.append(document)
        characters += len(document)
        if characters >= _CHARACTERS_AT_ONCE:
            yield from _encode(group, tokenizer)
            group, characters = [], 0
    yield from _encode(group, tokenizer)


def _encode(group: list[str], tokenizer: Any) -> Iterator[NDArray[np.int64]]:
    if group:
        encoded = tokenizer(group, add_special_tokens=False, return_attention_mask=False, verbose=False)
        yield from (np.array(ids, np.int64) for ids in encoded["input_ids"])


def _check_budget(corpus: Corpus, language: str, tokens: int, budget: int, allow_short: bool) -> None:
    if tokens == 0:
        raise DataError(f"corpus {corpus.name}: the texts of {language} hold no token but special ones")
    if tokens < budget and not allow_short:
        raise DataError(
            f"corpus {corpus.name} has {tokens} tokens of {language}, fewer than the {budget} asked for: "
            "lower --tokens, add texts, or give --allow-short"
        )


def _windows(text: TokenizedText, width: int) -> NDArray[np.int64]:
    """(document, start, end) of each window, int64 ``[windows, 3]``, the longest first."""
    lengths = np.diff(text.starts)
    number = -(-lengths // width)
    document = np.repeat(np.arange(text.documents), number)
    within = np.arange(len(document)) - np.repeat(np.cumsum(number) - number, number)
    start = text.starts[document] + within * width
    end = np.minimum(start + width, text.starts[document + 1])
    order = np.argsort(start - end, kind="stable")
    return np.stack([document, start, end], axis=1)[order]


def _batch(text: TokenizedText, rows: NDArray[np.int64], length: int) -> Batch:
    ids = np.empty((len(rows), length), np.int64)
    is_counted = np.zeros((len(rows), length), np.bool_)
    begin = len(text.special.prefix)
    ids[:, :begin] = text.special.prefix
    for row, (_, start, end) in enumerate(rows):
        behind = begin + end - start
        ids[row, begin:behind] = text.ids[start:end]
        is_counted[row, begin:behind] = True
        # Any token will do as padding; the window's last one is in the vocabulary for certain.
        ids[row, behind:] = text.ids[end - 1]
    return Batch(ids, is_counted & ~text.special.among(ids), rows[:, 0])

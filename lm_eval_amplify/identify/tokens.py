"""Texts as tokens, once: a budget of them per language in a file on disk, and from there in batches.

Every pass over the texts (counting, statistics) reads the same tokens, and a corpus that is too short,
unreadable or not UTF-8 is found out before the model runs for the first time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.identify.corpus import Corpus
from lm_eval_amplify.identify.framing import Framing, framing_of

_CHARACTERS_AT_ONCE = 1 << 20
"""Documents go to the tokenizer together up to this length: it uses its threads, and memory stays small."""

_BATCHES_AT_ONCE = 32
"""Rows of about equal length are put together within so many batches' tokens: memory does not grow with a text."""


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """The texts of one language, cut at the budget.

    Attributes:
        language: FLORES-200 code.
        ids: Token ids of all documents in a row, int32 ``[all tokens]``, on disk; a token that is read but does not
            count, as a special one, is its complement ``~id``.
        starts: Where each document begins, and the end, int64 ``[documents + 1]``, on disk.
        prefix: The tokens before every row, which are not in ``ids`` and do not count.
        tokens: Number of tokens that count.
        digest: SHA-256 of all of these.
    """

    language: str
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    prefix: tuple[int, ...]
    tokens: int
    digest: str = ""

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
    part_of: NDArray[np.int64]
    """-1 for a row that is a whole document, else the number of the document among those of several rows that are
    under way, ``[batch]``."""
    under_way: int
    """How many documents of several rows are under way."""
    completes: bool
    """Whether they are complete with this batch."""


def tokenize(
    corpus: Corpus,
    language: str,
    tokenizer: Any,
    budget: int,
    *,
    allow_short: bool = False,
    chat_template: bool = False,
) -> TokenizedText:
    """Tokenize the first ``budget`` tokens of a language; the document that exceeds the budget is cut there.

    Args:
        corpus: Where the texts are.
        language: Their language, a FLORES-200 code.
        tokenizer: A Hugging Face tokenizer.
        budget: Tokens to take, special tokens not among them.
        allow_short: Take what there is if it is less.
        chat_template: Put each text into the user's turn; the template's tokens do not count.

    Raises:
        DataError: The texts are missing, unreadable or too few, the disk is full, or there is no chat template.
    """
    framing = framing_of(tokenizer, chat_template=chat_template)
    digest = hashlib.sha256(repr(framing.prefix).encode())
    tokens = end = 0
    try:
        with _temporary() as ids_file, _temporary() as starts_file:
            starts_file.write(np.int64(0).tobytes())
            for document in _token_ids(corpus.documents(language), framing):
                counts = document >= 0
                within = np.flatnonzero(counts.cumsum() == budget - tokens)
                kept = document[: within[0] + 1] if len(within) else document
                tokens += int(counts[: len(kept)].sum())
                if len(kept):
                    end += len(kept)
                    for file, values in ((ids_file, kept.astype(np.int32)), (starts_file, np.array([end], np.int64))):
                        file.write(values.tobytes())
                        digest.update(values.tobytes())
                if tokens == budget:
                    break
            _check_budget(corpus, language, tokens, budget, allow_short)
            ids, starts = _mapped(ids_file, np.int32), _mapped(starts_file, np.int64)
    except OSError as error:
        raise DataError(f"cannot keep the tokens of {language} in {tempfile.gettempdir()}: {error}") from error
    return TokenizedText(language, ids, starts, framing.prefix, tokens, digest.hexdigest())


def batches(
    text: TokenizedText, *, max_length: int, batch_tokens: int, share: tuple[int, int] = (0, 1)
) -> Iterator[Batch]:
    """Cut documents into windows and put windows of about equal length together, up to a budget of tokens.

    Padding is on the right whatever the tokenizer prefers: a decoder cannot see it from the left of it, so it needs
    no attention mask and shifts no position. Documents never share a row, so that a token's activation does not
    depend on its document's neighbours.

    Args:
        text: The tokens.
        max_length: Most positions in a row, the prefix included; what is left of a longer document becomes a
            further row that begins with the prefix again.
        batch_tokens: Most positions in a batch, padding included.
        share: Take the documents of part ``share[0]`` of ``share[1]`` parts of about equally many tokens.
    """
    part, parts = share
    bounds = np.searchsorted(text.starts[:-1], [len(text.ids) * n // parts for n in (part, part + 1)])
    first, end = map(int, bounds)
    while first < end:
        most = text.starts[first] + _BATCHES_AT_ONCE * batch_tokens
        behind = int(np.searchsorted(text.starts, most, side="right")) - 1
        behind = min(max(behind, first + 1), end)
        yield from _batches_of(text, first, behind, max_length, batch_tokens)
        first = behind


def _batches_of(text: TokenizedText, first: int, behind: int, max_length: int, batch_tokens: int) -> Iterator[Batch]:
    """Batches of the documents from ``first`` on, the longest rows first."""
    rows = _windows(text, first, behind, max_length - len(text.prefix))
    windows = np.bincount(rows[:, 0] - first, minlength=behind - first)
    number = np.where(windows > 1, np.cumsum(windows > 1) - 1, -1)
    start = 0
    while start < len(rows):
        length = len(text.prefix) + rows[start, 2] - rows[start, 1]
        own = rows[start : start + max(1, batch_tokens // length)]
        start += len(own)
        ids, is_counted = _padded(text, own, length)
        part_of = number[own[:, 0] - first]
        yield Batch(ids, is_counted, own[:, 0], part_of, int(number.max()) + 1, start == len(rows))


def _token_ids(documents: Iterator[str], framing: Framing) -> Iterator[NDArray[np.int64]]:
    group: list[str] = []
    characters = 0
    for document in documents:
        group.append(document)
        characters += len(document)
        if characters >= _CHARACTERS_AT_ONCE:
            yield from framing.encode(group)
            group, characters = [], 0
    if group:
        yield from framing.encode(group)


def _temporary() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="lm-eval-amplify-")


def _mapped(file: IO[bytes], dtype: type) -> NDArray[Any]:
    """The content, unnamed on disk already; the mapping keeps it until it is garbage."""
    file.flush()
    return np.memmap(file, dtype, "r")


def _check_budget(corpus: Corpus, language: str, tokens: int, budget: int, allow_short: bool) -> None:
    if tokens == 0:
        raise DataError(f"corpus {corpus.name}: the texts of {language} hold no token but special ones")
    if tokens < budget and not allow_short:
        raise DataError(
            f"corpus {corpus.name} has {tokens} tokens of {language}, fewer than the {budget} asked for: "
            "lower --tokens, add texts, or give --allow-short"
        )


def _windows(text: TokenizedText, first: int, behind: int, width: int) -> NDArray[np.int64]:
    """(document, start, end) of each window of some documents, int64 ``[windows, 3]``, the longest first."""
    starts = text.starts[first : behind + 1]
    number = -(-np.diff(starts) // width)
    own = np.repeat(np.arange(behind - first), number)
    within = np.arange(len(own)) - np.repeat(np.cumsum(number) - number, number)
    start = starts[own] + within * width
    end = np.minimum(start + width, starts[own + 1])
    order = np.argsort(start - end, kind="stable")
    return np.stack([first + own, start, end], axis=1)[order]


def _padded(text: TokenizedText, rows: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    ids = np.empty((len(rows), length), np.int64)
    is_counted = np.zeros((len(rows), length), np.bool_)
    begin = len(text.prefix)
    ids[:, :begin] = text.prefix
    for row, (_, start, end) in enumerate(rows):
        behind = begin + end - start
        own = text.ids[start:end]
        counts = own >= 0
        ids[row, begin:behind] = np.where(counts, own, ~own)
        is_counted[row, begin:behind] = counts
        # Any token will do as padding; the window's last one is in the vocabulary for certain.
        ids[row, behind:] = ids[row, behind - 1]
    return ids, is_counted

"""When a row of a generation ends: at its last token, or at a stop string, found without decoding every step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

_NOT_WHOLE = "\N{REPLACEMENT CHARACTER}"
"""What a token decodes to that holds a part of a character's bytes."""


class StopString(NamedTuple):
    """A stop string and how many of a row's last tokens are searched for it.

    The harness searches two tokens more than the string itself has (``MultiTokenEOSCriteria``), so that
    one which a model writes in more tokens is missed. So it is here: what is generated stays the same.
    """

    text: str
    window: int


class TokenTexts:
    """Which characters a token can bring into a text, remembered by token.

    Args:
        tokenizer: Of the model; decodes lists of tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def may_write(self, token: int, character: str) -> bool:
        """Return whether a text with this token in it may have the character, or the end of it, from this token.

        The token is decoded twice in a row: at the beginning of a text tokenizers drop a token's leading space.
        """
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self.decode([token, token])
        return character in text or _NOT_WHOLE in text

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones included, as the harness's stopping criteria decode it."""
        text: str = self._tokenizer.decode(tokens)
        return text


class Ends:
    """Follows the rows of a batch and says after each token which of them have ended.

    A row has ended when the harness, generating it alone, would stop: transformers at one of the tokens that end a
    text, the harness's criteria at a stop string among the last tokens, both at the greatest length. In a batch the
    harness goes on until all rows have ended at the same stop string, and cuts off afterwards what came too much.

    Args:
        rows: Number of rows.
        last_tokens: Tokens that end a text.
        stop_strings: Of all rows.
        texts: Of the tokenizer.
        limit: The number of tokens at which a row ends in any case.
    """

    def __init__(
        self,
        rows: int,
        *,
        last_tokens: Iterable[int],
        stop_strings: Sequence[StopString],
        texts: TokenTexts,
        limit: int,
    ) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        """What each row has generated."""
        self.limit = limit
        self._last_tokens = frozenset(last_tokens)
        self._stop_strings = stop_strings
        self._texts = texts
        # For each row and stop string: the number of tokens up to which its window holds one that may end the string.
        self._searched: list[list[int]] = [[0] * len(stop_strings) for _ in range(rows)]

    def add(self, row: int, token: int) -> bool:
        """Take a row's next token and return whether the row has ended with it."""
        tokens = self.tokens[row]
        tokens.append(token)
        # The strings first: each must see every token.
        return self._at_stop_string(row, token) or token in self._last_tokens or len(tokens) >= self.limit

    def _at_stop_string(self, row: int, token: int) -> bool:
        tokens, searched = self.tokens[row], self._searched[row]
        for number, (text, window) in enumerate(self._stop_strings):
            if self._texts.may_write(token, text[-1:]):
                searched[number] = len(tokens) + window - 1
            if len(tokens) <= searched[number] and text in self._texts.decode(tokens[-window:]):
                return True
        return False

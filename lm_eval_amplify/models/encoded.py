"""Texts as tokens, each text once and many in a call; the tokens are those that HFLM has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix

_AT_ONCE = 256
"""Texts of a call: a fast tokenizer works on them with all processors, and keeps much about each until it is done."""


class EncodedHFLM(HFLM):  # type: ignore[misc]  # the harness is untyped
    """HFLM that can have encoded texts before they are asked for.

    HFLM encodes request by request, and a context again for each of its options. On a GPU that takes longer than the
    model does.
    """

    _ahead: dict[str, list[int]] | None = None
    """Tokens by text, of what :meth:`tok_encode` returns for it alone; None: nothing is encoded ahead."""
    _keeps_encodings = False

    def keep_encodings(self) -> None:
        """Keep what is encoded ahead from now on, for requests that come again; what was kept is forgotten."""
        self._keeps_encodings, self._ahead = True, None

    def tok_encode(self, string: str, *args: Any, **options: Any) -> list[int]:
        """As in HFLM."""
        found = None if args or options or self._ahead is None else self._ahead.get(string)
        return list(super().tok_encode(string, *args, **options)) if found is None else list(found)

    @contextmanager
    def _encoded_ahead(self, texts: Iterable[str]) -> Iterator[None]:
        """Encode these texts now; what is asked for inside the context is there, or encoded as in HFLM.

        A tokenizer that is not fast would gain nothing.
        """
        if getattr(self.tokenizer, "is_fast", False):
            first = self.tokenizer.decode(self.prefix_token_id)
            usual = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
            with_first: list[str] = []  # they bring their own first token
            others: list[str] = []
            known = self._ahead or {}
            for text in dict.fromkeys(texts):
                if text not in known:
                    (with_first if has_bos_prefix(text, first) else others).append(text)
            new = self._encoded(others, usual) | self._encoded(with_first, {"add_special_tokens": False})
            self._ahead = {**known, **new}
        try:
            yield
        finally:
            if not self._keeps_encodings:
                self._ahead = None

    def _encoded(self, texts: Sequence[str], options: dict[str, bool]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for start in range(0, len(texts), _AT_ONCE):
            some = list(texts[start : start + _AT_ONCE])
            made = self.tokenizer(some, return_attention_mask=False, return_token_type_ids=False, **options)
            found.update(zip(some, made["input_ids"], strict=True))
        return found


def texts_of_pairs(requests: Iterable[Instance]) -> Iterator[str]:
    """Yield what HFLM encodes of contexts and continuations: both together, and a context without its last spaces."""
    for request in requests:
        context, continuation = request.args
        if context:
            yield context + continuation
            yield context.rstrip()

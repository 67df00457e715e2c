"""Means over documents from sums over rows, in memory that does not grow with the texts."""

from __future__ import annotations

import numpy as np
import torch

from lm_eval_amplify.identify.tokens import Batch


class SentenceMeans:
    """Turns sums over a batch's rows into the means of the documents that are complete with it.

    A row is mostly a whole document. Of those that take several rows, the sums are held until all their rows have
    come, which is soon (:attr:`Batch.completes`).
    """

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None
        self._tokens = np.empty(0, np.int64)

    def completed(self, sums: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the means of complete documents, ``[documents, columns]``; of those without a token there are none.

        Args:
            sums: Over the counted positions of each row, ``[batch, columns]``.
            batch: The batch.
        """
        tokens = batch.is_counted.sum(1)
        is_whole = batch.part_of < 0
        means = [_means(sums, tokens, np.flatnonzero(is_whole))]
        if not is_whole.all():
            rows = np.flatnonzero(~is_whole)
            if self._sums is None:
                self._sums = sums.new_zeros((batch.under_way, sums.shape[1]))
                self._tokens = np.zeros(batch.under_way, np.int64)
            part_of = batch.part_of[rows]
            self._sums.index_add_(0, _on(part_of, sums), sums.index_select(0, _on(rows, sums)))
            np.add.at(self._tokens, part_of, tokens[rows])
        if batch.completes and self._sums is not None:
            means.append(_means(self._sums, self._tokens, np.arange(len(self._tokens))))
            self._sums = None
        return torch.cat(means)


def _means(sums: torch.Tensor, tokens: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    rows = rows[tokens[rows] > 0]
    number = _on(tokens[rows], sums).to(sums.dtype)
    return sums.index_select(0, _on(rows, sums)) / number[:, None]


def _on(numbers: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(numbers).to(like.device)

"""Quantiles of a stream in little memory: a deterministic sketch that can be merged and knows its error.

Munro and Paterson's scheme as in Manku, Rajagopalan and Lindsay 1998 ("Approximate medians and other quantiles in
one pass and with limited memory"): a full buffer of values of weight w is sorted, and every other of them, of
weight 2 w, goes to the next buffer; in turn the odd ones and the even ones, so that errors tend to cancel.
"""

from __future__ import annotations

import numpy as np
import torch

CAPACITY = 1024
"""Values in a buffer. Of n values the error is at most ceil(log2(n / 1024)) / 1024 of n: of 100,000 0.7 %."""


class QuantileSketch:
    """Quantiles of the columns of what was added; those of numpy, exactly, while no more than a buffer was.

    Memory: ``capacity * columns`` values for each doubling of their number.

    Attributes:
        items: Number of rows added.
        rank_error: The rank of a quantile's value in its sorted column is at most so many places off.
    """

    def __init__(self, columns: int, capacity: int = CAPACITY) -> None:
        if capacity < 2 or capacity % 2:
            raise ValueError(f"capacity={capacity}: expected an even number")
        self.items = 0
        self.rank_error = 0
        self._columns = columns
        self._capacity = capacity
        self._buffers: list[torch.Tensor] = []
        self._filled: list[int] = []
        self._takes_even: list[bool] = []

    def add(self, values: torch.Tensor) -> None:
        """Add rows, ``[items, columns]``; they must not be NaN."""
        self.items += len(values)
        self._push(0, values)

    def merge(self, other: QuantileSketch) -> None:
        """Add what another sketch of as many columns was given."""
        self.items += other.items
        self.rank_error += other.rank_error
        for level, (buffer, filled) in enumerate(zip(other._buffers, other._filled, strict=True)):
            self._push(level, buffer[:filled])

    def quantiles(self, shares: tuple[float, ...]) -> torch.Tensor:
        """Return the quantiles at some shares between 0 and 1, float64 ``[shares, columns]``.

        Between two values it is interpolated linearly, as numpy does.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.items:
            raise ValueError("quantiles of no values")
        parts = [buffer[:filled] for buffer, filled in zip(self._buffers, self._filled, strict=True)]
        weights = torch.cat([torch.full((len(part),), 1 << level) for level, part in enumerate(parts)])
        values, order = torch.cat([part.cpu() for part in parts]).to(torch.float64).sort(dim=0)
        behind = weights[order].cumsum(0).T.contiguous()  # ranks behind each value, [columns, values]
        values = values.T.contiguous()
        found = []
        for share in shares:
            at = share * (self.items - 1)
            low, high = (
                values.gather(1, torch.searchsorted(behind, torch.full((self._columns, 1), rank), right=True))
                for rank in (int(np.floor(at)), int(np.ceil(at)))
            )
            found.append((low + (high - low) * (at - np.floor(at)))[:, 0])
        return torch.stack(found)

    def cpu(self) -> QuantileSketch:
        """Return the same on the CPU, to send to another process."""
        moved = QuantileSketch(self._columns, self._capacity)
        moved.__dict__.update(self.__dict__)
        moved._buffers = [buffer.cpu() for buffer in self._buffers]
        return moved

    def _push(self, level: int, values: torch.Tensor) -> None:
        if level == len(self._buffers):
            self._buffers.append(values.new_empty((self._capacity, self._columns)))
            self._filled.append(0)
            self._takes_even.append(True)
        while len(values):
            filled = self._filled[level]
            taken = values[: self._capacity - filled]
            values = values[len(taken) :]
            self._buffers[level][filled : filled + len(taken)] = taken
            self._filled[level] += len(taken)
            # Only when more comes: what fits in one buffer stays exact.
            if self._filled[level] == self._capacity and len(values):
                self._compact(level)

    def _compact(self, level: int) -> None:
        kept = self._buffers[level].sort(dim=0).values[0 if self._takes_even[level] else 1 :: 2]
        self._takes_even[level] = not self._takes_even[level]
        self._filled[level] = 0
        self.rank_error += 1 << level
        self._push(level + 1, kept)

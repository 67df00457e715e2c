"""What keeps memory small: quantile sketches, sentence means on the way, texts in stretches and in shares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import InMemory, sentences

from lm_eval_amplify.identify.sentences import SentenceMeans
from lm_eval_amplify.identify.sketch import QuantileSketch
from lm_eval_amplify.identify.tokens import batches, tokenize

TOKENIZER = tiny.tokenizer()
SHARES = (0.0, 0.1, 0.5, 0.9, 1.0)


def sketch_of(values: np.ndarray, capacity: int, pieces: int) -> QuantileSketch:
    sketch = QuantileSketch(values.shape[1], capacity)
    for piece in np.array_split(values, pieces):
        sketch.add(torch.from_numpy(piece))
    return sketch


class TestQuantileSketch:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 64), st.integers(1, 9), st.integers(0, 99), st.booleans())
    def test_while_everything_fits_they_are_numpys(self, items: int, pieces: int, seed: int, ties: bool) -> None:
        values = np.random.default_rng(seed).normal(size=(items, 3))
        values = np.round(values) if ties else values
        sketch = sketch_of(values, 64, pieces)
        assert (sketch.items, sketch.rank_error) == (items, 0)
        np.testing.assert_allclose(sketch.quantiles(SHARES), np.quantile(values, SHARES, axis=0), atol=1e-12)

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 3000),
        st.integers(1, 20),
        st.sampled_from([2, 16, 64]),
        st.sampled_from(["normal", "sorted", "ties", "zigzag"]),
        st.booleans(),
    )
    def test_beyond_that_ranks_are_off_by_no_more_than_it_says(
        self, items: int, pieces: int, capacity: int, order: str, merged: bool
    ) -> None:
        values = np.random.default_rng(items).normal(size=(items, 2))
        if order == "sorted":
            values = np.sort(values, axis=0)
        elif order == "ties":
            values = np.round(values)
        elif order == "zigzag":
            values = np.sort(values, axis=0)[np.argsort(np.arange(items) % 2, kind="stable")]
        if merged:
            first, second = np.array_split(values, [items // 3])
            sketch = sketch_of(first, capacity, pieces)
            sketch.merge(sketch_of(second, capacity, 1))
        else:
            sketch = sketch_of(values, capacity, pieces)
        assert sketch.items == items
        for column in range(2):
            own = np.sort(values[:, column])
            for share, found in zip(SHARES, sketch.quantiles(SHARES)[:, column].tolist(), strict=True):
                at = share * (items - 1)
                low, high = np.searchsorted(own, found, "left"), np.searchsorted(own, found, "right") - 1
                assert low - sketch.rank_error <= np.ceil(at)
                assert high + sketch.rank_error >= np.floor(at)

    def test_its_error_is_what_its_documentation_says(self) -> None:
        values = np.random.default_rng(0).normal(size=(100_000, 2))
        sketch = sketch_of(values, 1024, 30)
        assert sketch.rank_error / 100_000 <= 7 / 1024
        ranks = [(values[:, 0] < sketch.quantiles((share,))[0, 0].item()).mean() for share in (0.1, 0.5, 0.9)]
        np.testing.assert_allclose(ranks, (0.1, 0.5, 0.9), atol=0.002)  # in practice much less

    def test_the_same_stream_gives_the_same_quantiles_and_memory_grows_with_its_logarithm(self) -> None:
        values = np.random.default_rng(0).normal(size=(40_000, 2))
        one, other = sketch_of(values, 64, 7), sketch_of(values, 64, 7)
        assert torch.equal(one.quantiles(SHARES), other.quantiles(SHARES))
        assert sum(len(buffer) for buffer in one._buffers) <= 64 * (np.log2(40_000 / 64) + 2)


def long_and_short(budget: int = 10**6):
    documents = [" ".join(sentences("ind_Latn", n, seed=n)) for n in (1, 9, 1, 30, 2, 1, 1, 12, 1, 1)] * 3
    return tokenize(InMemory({"ind_Latn": documents}), "ind_Latn", TOKENIZER, budget, allow_short=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 60), st.integers(1, 300), st.integers(1, 5))
def test_every_document_comes_once_in_some_share_and_its_mean_is_found(
    max_length: int, batch_tokens: int, parts: int
) -> None:
    text = replace(long_and_short(), prefix=(0, 1))
    everything = []
    for part in range(parts):
        means, documents = SentenceMeans(), set()
        for batch in batches(text, max_length=max_length, batch_tokens=batch_tokens, share=(part, parts)):
            values = torch.from_numpy(np.where(batch.is_counted, batch.ids, 0)).to(torch.float64)
            everything += means.completed(values.sum(1, keepdim=True), batch)[:, 0].tolist()
            documents |= set(batch.document.tolist())
        assert sorted(documents) == list(range(min(documents, default=0), max(documents, default=-1) + 1))
    bounds = zip(text.starts[:-1], text.starts[1:], strict=True)
    np.testing.assert_allclose(sorted(everything), sorted(text.ids[a:b].mean() for a, b in bounds))


def test_shares_are_of_about_equally_many_tokens() -> None:
    text = long_and_short()
    read = [
        sum(int(batch.is_counted.sum()) for batch in batches(text, max_length=64, batch_tokens=640, share=(part, 3)))
        for part in range(3)
    ]
    assert sum(read) == text.tokens
    longest = int(np.diff(text.starts).max())
    assert max(abs(own - text.tokens / 3) for own in read) <= longest


def test_hardly_anything_of_a_batch_is_padding() -> None:
    documents = sentences("ind_Latn", 800)
    text = tokenize(InMemory({"ind_Latn": documents}), "ind_Latn", TOKENIZER, 10**6, allow_short=True)
    found = list(batches(text, max_length=256, batch_tokens=512))
    positions = sum(batch.ids.size for batch in found)
    assert text.tokens > 0.9 * positions
    assert positions / len(found) > 0.9 * 512 * (len(found) - 1) / len(found)


def test_a_text_of_many_batches_comes_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval_amplify.identify.tokens._BATCHES_AT_ONCE", 2)
    text = long_and_short()
    most = 0
    seen = 0
    for batch in batches(text, max_length=16, batch_tokens=64):
        most = max(most, batch.under_way)
        assert batch.document.min() >= seen
        if batch.completes:
            seen = batch.document.max() + 1
    # A document is under way only if it is longer than a row: of 128 tokens there are no more than 8, and the last.
    assert 0 < most <= 9

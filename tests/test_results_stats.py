"""Statistics of differences, against scipy, sacrebleu and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lm_eval_amplify.results.aggregates import Reported, pair_documents
from lm_eval_amplify.results.stats import holm, mcnemar, paired_difference, unpaired_difference


def mean_pair(old, new):
    part = pair_documents("shift", Reported(list(old), float(np.mean(old))), Reported(list(new), float(np.mean(new))))
    assert part is not None
    return part


def normal(seed, n=60, shift=0.0):
    random = np.random.default_rng(seed)
    old = random.normal(size=n)
    return old, old + random.normal(shift, 0.5, size=n)


def test_of_a_mean_the_paired_test_is_the_t_test():
    old, new = normal(1, shift=0.1)
    found = paired_difference([mean_pair(old, new)])
    expected = stats.ttest_rel(new, old)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.difference == pytest.approx(np.mean(new - old))
    assert (found.method, found.documents) == ("paired", 60)


def test_the_interval_is_scipys_percentile_bootstrap():
    old, new = normal(2, shift=0.2)
    found = paired_difference([mean_pair(old, new)], confidence=0.9)
    expected = stats.bootstrap(
        (new - old,), np.mean, n_resamples=20_000, method="percentile", confidence_level=0.9, rng=3
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.005)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    hits = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        old = random.random(40)
        new = old + random.normal(0.3, 1.0, 40)
        found = paired_difference([mean_pair(old, new)._replace(resamples=500)], confidence=0.8, seed=seed)
        hits += found.low <= 0.3 <= found.high
    assert 68 <= hits <= 92  # 80 within three standard errors


def test_a_seed_gives_the_same_interval_and_another_one_another():
    parts = [mean_pair(*normal(3))]
    assert paired_difference(parts) == paired_difference(parts)
    assert paired_difference(parts).low != paired_difference(parts, seed=1).low


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1.0), (1, 5, 14 / 64), (0, 5, 2 / 32), (3, 3, 1.0)])
def test_mcnemar_by_hand(won, lost, p):
    old = np.array([0.0] * won + [1.0] * lost + [1.0, 0.0])
    new = np.array([1.0] * won + [0.0] * lost + [1.0, 0.0])
    assert mcnemar(old, new) == pytest.approx(p)


def test_right_or_wrong_is_tested_by_mcnemar_and_a_share_of_each_document_is_not():
    old, new = [1.0] * 8 + [0.0] * 4, [1.0] * 2 + [0.0] * 10
    assert paired_difference([mean_pair(old, new)])[3:5] == (pytest.approx(2 / 64), "mcnemar")
    assert paired_difference([mean_pair([0.5, *old], [0.0, *new])]).method == "paired"


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=20))
@settings(max_examples=30, deadline=None)
def test_old_and_new_swapped_is_the_difference_turned_round(pairs):
    old, new = zip(*pairs, strict=True)
    there, back = (paired_difference([mean_pair(*sides)]) for sides in ((old, new), (new, old)))
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    assert there.p == pytest.approx(back.p, abs=1e-9)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_equal_runs_differ_by_nothing_for_sure():
    old, _ = normal(4)
    assert paired_difference([mean_pair(old, old)])[:4] == (0.0, 0.0, 0.0, 1.0)


def test_documents_without_a_value_are_left_out_of_means():
    old, new = [1.0, math.nan, 0.0, 0.5], [0.5, math.nan, 0.0, 0.0]
    part = pair_documents("lss", Reported(old, 0.5), Reported(new, 0.5 / 3))
    assert paired_difference([part]).difference == pytest.approx(0.5 / 3 - 0.5)


def test_one_document_says_nothing():
    assert paired_difference([mean_pair([1.0], [0.0])]) is None


def test_perplexities_of_bytes_and_their_bits_are_one_test():
    random = np.random.default_rng(5)
    old = [[float(-x), int(n)] for x, n in zip(random.gamma(50, 2, 40), random.integers(20, 60, 40), strict=True)]
    new = [[value - abs(random.normal(1, 2)), n] for value, n in old]

    def total(side):
        return sum(v for v, _ in side) / sum(n for _, n in side)

    bits = pair_documents("bits_per_byte", *(Reported(s, -total(s) / math.log(2)) for s in (old, new)))
    perplexity = pair_documents("byte_perplexity", *(Reported(s, math.exp(-total(s))) for s in (old, new)))
    one, other = paired_difference([bits]), paired_difference([perplexity])
    assert one.p == pytest.approx(other.p, rel=1e-6)
    assert one.difference == pytest.approx((total(old) - total(new)) / math.log(2))
    assert other.difference == pytest.approx(math.exp(-total(new)) - math.exp(-total(old)))
    assert 0 < one.low < one.difference < one.high


@pytest.mark.parametrize(
    ("metric", "score"),
    [("bleu", sacrebleu.corpus_bleu), ("chrf", sacrebleu.corpus_chrf), ("ter", sacrebleu.corpus_ter)],
)
@pytest.mark.parametrize("order", ["the harness's", "ours"])
def test_corpus_scores_are_sacrebleus(metric, score, order):
    random = np.random.default_rng(6)
    words = "sun rain river stone bird tree house road".split()

    def texts(spoil):
        return [" ".join(word if random.random() > spoil else "x" for word in line) for line in lines]

    lines = [random.choice(words, 9) for _ in range(30)]
    references = [" ".join(line) for line in lines]
    sides = []
    for written in (texts(0.1), texts(0.4)):
        pairs = list(zip(references, written, strict=True))
        pairs = pairs if order == "the harness's" else [(w, r) for r, w in pairs]
        sides.append(Reported(pairs, score(written, [references]).score))
    part = pair_documents(metric, *sides)
    found = paired_difference([part])
    assert found.difference == pytest.approx(sides[1].value - sides[0].value, abs=1e-9)
    assert found.p < 1e-6
    assert min(abs(found.low), abs(found.high)) > 5


def test_an_aggregation_that_does_not_make_the_number_is_not_used():
    old, new = normal(7)
    assert pair_documents("x", Reported(list(old), float(np.mean(old))), Reported(list(new), 17.0)) is None
    assert pair_documents("x", Reported(["a", "b"], 0.5), Reported(["a", "b"], 0.5)) is None


def test_a_group_is_the_weighted_mean_of_its_tasks():
    one, other = mean_pair(*normal(8, n=40)), mean_pair(*normal(9, n=60))
    weighted = paired_difference([one._replace(weight=0.4), other._replace(weight=0.6)])
    parts = [paired_difference([part]) for part in (one, other)]
    assert weighted.difference == pytest.approx(0.4 * parts[0].difference + 0.6 * parts[1].difference)
    widths = [part.high - part.low for part in parts]
    assert weighted.high - weighted.low == pytest.approx(math.hypot(0.4 * widths[0], 0.6 * widths[1]), rel=0.1)
    assert weighted.documents == 100


def test_without_documents_the_standard_errors_decide():
    found = unpaired_difference(0.5, 0.03, 0.4, 0.04)
    assert found.difference == pytest.approx(-0.1)
    assert found.p == pytest.approx(0.0455, abs=1e-4)  # two standard errors
    assert (found.low, found.high) == pytest.approx((-0.1 - 1.96 * 0.05, -0.1 + 1.96 * 0.05), abs=1e-4)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_without_scipy_it_says_what_to_install(monkeypatch):
    import sys

    from lm_eval_amplify.errors import ResultsError

    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ResultsError, match=r"pip install 'lm-eval-amplify\[report\]'"):
        unpaired_difference(0.5, 0.03, 0.4, 0.04)

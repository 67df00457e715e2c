"""LAPE: the choice of neurons by counts."""

from __future__ import annotations

import math

import lape_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.lape import Lape, entropy, quantile
from lm_eval_amplify.neurons import LanguageNeurons

CODES = ("est_Latn", "hat_Latn", "ind_Latn", "swh_Latn", "tam_Taml", "zho_Hans")


def pairs(own: LanguageNeurons) -> list[tuple[int, int]]:
    return list(zip(own.layer.tolist(), own.index.tolist(), strict=True))


def counts(over_zero: object, tokens: object) -> Counts:
    values = np.array(over_zero, np.int64)
    return Counts(CODES[: values.shape[2]], values, np.array(tokens, np.int64))


@st.composite
def random_counts(draw: st.DrawFn) -> Counts:
    languages = draw(st.integers(2, 5))
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 12)), languages)
    # Few tokens give many ties and zero rows, many give few.
    tokens = draw(hnp.arrays(np.int64, languages, elements=st.integers(1, draw(st.sampled_from([2, 6, 10**7])))))
    shares = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0, 0.1, 0.3, 0.5, 0.9, 1]) | st.floats(0, 1)))
    return Counts(CODES[:languages], np.floor(shares * tokens).astype(np.int64), tokens)


RATES = st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])


class TestAgainstASlowImplementation:
    @settings(max_examples=400, deadline=None)
    @given(random_counts(), st.sampled_from([0.01, 0.05, 0.2, 0.5, 1.0]), RATES, RATES)
    def test_every_language_has_the_same_neurons_on_random_counts(
        self, given_counts: Counts, top_rate: float, filter_rate: float, bar: float
    ) -> None:
        found = Lape(top_rate, filter_rate, bar).choose(given_counts)
        expected = lape_oracle.select(
            given_counts.over_zero.tolist(), given_counts.tokens.tolist(), top_rate, filter_rate, bar
        )
        assert [pairs(found[language]) for language in given_counts.languages] == expected

    @settings(max_examples=100, deadline=None)
    @given(random_counts(), st.randoms(use_true_random=False), st.sampled_from([0.05, 0.2, 0.5]))
    def test_a_permutation_of_the_languages_permutes_the_result(
        self, given_counts: Counts, random: object, top_rate: float
    ) -> None:
        order = list(range(len(given_counts.languages)))
        random.shuffle(order)  # type: ignore[attr-defined]
        permuted = Counts(
            tuple(given_counts.languages[i] for i in order),
            given_counts.over_zero[:, :, order],
            given_counts.tokens[order],
        )
        method = Lape(top_rate, 0.5, 0.5)
        before, after = method.choose(given_counts), method.choose(permuted)
        assert list(after) == list(permuted.languages)
        assert {k: pairs(v) for k, v in before.items()} == {k: pairs(v) for k, v in after.items()}


class TestByHand:
    def test_a_neuron_active_in_one_language_has_entropy_zero_and_is_that_languages(self) -> None:
        # Probabilities by neuron: (0.5, 0), (0.4, 0.4), (0, 0), (0.3, 0.2).
        given_counts = counts([[[5, 0], [4, 8]], [[0, 0], [3, 4]]], [10, 20])
        assert entropy(given_counts.probabilities)[0, 0] == 0
        # Of 8 sorted values 0 0 0 .2 .3 .4 .4 .5 the 4th is .2.
        found = Lape(0.25, 0.5, 0.5).choose(given_counts)
        assert pairs(found["est_Latn"]) == [(0, 0)]
        assert pairs(found["hat_Latn"]) == []

    def test_equal_activity_has_the_logarithm_of_the_number_of_languages(self) -> None:
        for languages in (2, 3, 6):
            even = counts([[[7] * languages]], [11] * languages)
            assert entropy(even.probabilities)[0, 0] == pytest.approx(math.log(languages), abs=1e-10)

    def test_entropy_is_that_of_shares_worked_out(self) -> None:
        # Probabilities 0.3 and 0.1 give shares 3/4 and 1/4.
        found = entropy(counts([[[3, 1]]], [10, 10]).probabilities)[0, 0]
        assert found == pytest.approx(2 * math.log(2) - 0.75 * math.log(3), abs=1e-10)

    def test_a_neuron_that_is_never_active_is_never_chosen(self) -> None:
        given_counts = counts([[[0, 0], [9, 9], [0, 0], [1, 0]]], [10, 10])
        assert np.isposinf(entropy(given_counts.probabilities)[0, [0, 2]]).all()
        # top_rate 1 asks for four neurons; two are never active.
        found = Lape(1.0, 0.2, 0.2).choose(given_counts)
        assert {index for own in found.values() for _, index in pairs(own)} == {1, 3}

    def test_ties_at_the_cut_go_to_the_lower_layer_then_index(self) -> None:
        # Four neurons of one language alone: entropy 0 at different probabilities. There is room for two.
        given_counts = counts([[[0, 0], [6, 0]], [[9, 0], [8, 0]], [[7, 0], [0, 0]]], [10, 10])
        found = Lape(2 / 6, 0.1, 0.1).choose(given_counts)
        assert pairs(found["est_Latn"]) == [(0, 1), (1, 0)]

    def test_entropies_that_differ_by_rounding_only_are_tied(self) -> None:
        # The same shares in another order and at a scale at which floats give the first 2e-16 more.
        base = np.array([29, 24, 29, 12])
        given_counts = counts([[base * 27, base[::-1] * 40]], [40000] * 4)
        found = entropy(given_counts.probabilities)[0]
        assert found[0] == found[1]
        chosen = Lape(0.5, 0.1, 0.1).choose(given_counts)
        assert {key for own in chosen.values() for key in pairs(own)} == {(0, 0)}

    def test_a_probability_equal_to_the_quantile_does_not_exceed_it(self) -> None:
        given_counts = counts([[[5, 0], [5, 1], [1, 0], [4, 0]]], [10, 10])
        # Sorted: 0 0 0 .1 .1 .4 .5 .5; filter_rate 0.75 gives the 6th, .4: the last neuron is no candidate.
        found = Lape(1.0, 0.75, 0.1).choose(given_counts)
        assert pairs(found["est_Latn"]) == [(0, 0), (0, 1)]
        # A bar of .1 (the 4th) keeps the second language, with .1, out.
        found = Lape(1.0, 0.25, 0.5).choose(given_counts)
        assert pairs(found["hat_Latn"]) == []

    def test_the_quantile_rounds_its_position_half_to_even_and_counts_from_one(self) -> None:
        values = np.array([[[0.5, 0.1, 0.4, 0.2, 0.3]]])
        assert [quantile(values, rate) for rate in (0.2, 0.5, 0.7, 0.01)] == [0.1, 0.2, 0.4, 0.1]

    def test_a_language_without_neurons_keeps_its_place(self) -> None:
        found = Lape(0.5, 0.5, 0.5).choose(counts([[[9, 0, 0], [8, 1, 0]]], [10, 10, 10]))
        assert list(found) == ["est_Latn", "hat_Latn", "ind_Latn"]
        assert found["ind_Latn"].layer.shape == (0,)
        assert found["ind_Latn"].layer.dtype == found["ind_Latn"].index.dtype == np.int32

    def test_with_enough_candidates_the_union_has_the_number_asked_for(self) -> None:
        random = np.random.default_rng(0)
        given_counts = counts(random.integers(1, 1000, (4, 250, 5)), [1000] * 5)
        for top_rate in (0.01, 0.05, 0.0995):
            found = Lape(top_rate, 0.8, 0.8).choose(given_counts)
            union = {key for own in found.values() for key in pairs(own)}
            assert len(union) == round(1000 * top_rate)


class TestCounts:
    @settings(max_examples=50, deadline=None)
    @given(random_counts())
    def test_two_shards_add_up(self, given_counts: Counts) -> None:
        both = given_counts + given_counts
        np.testing.assert_array_equal(both.over_zero, 2 * given_counts.over_zero)
        np.testing.assert_array_equal(both.tokens, 2 * given_counts.tokens)
        np.testing.assert_array_equal(both.probabilities, given_counts.probabilities)

    def test_counts_of_other_languages_or_shapes_do_not_add_up(self) -> None:
        one = counts([[[1, 1]]], [2, 2])
        with pytest.raises(IdentificationError, match=r"est_Latn, hat_Latn \[1, 1, 2\] and of hat_Latn"):
            one + Counts(("hat_Latn", "est_Latn"), one.over_zero, one.tokens)
        with pytest.raises(IdentificationError, match="of different shapes"):
            Counts.join([one, counts([[[1, 1], [1, 1]]], [2, 2])])

    def test_more_active_tokens_than_tokens_are_refused(self) -> None:
        with pytest.raises(IdentificationError, match="counts of hat_Latn lie between 0 and 3, expected 0 to its"):
            counts([[[1, 3]]], [2, 2])

    def test_a_language_without_tokens_has_no_probabilities(self) -> None:
        shard = counts([[[1, 0]]], [2, 0])
        with pytest.raises(IdentificationError, match="no tokens were counted of hat_Latn"):
            _ = shard.probabilities
        assert (shard + counts([[[1, 1]]], [2, 2])).probabilities.tolist() == [[[0.5, 0.5]]]


class TestParameters:
    @pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan")])
    def test_a_top_rate_outside_its_range_is_refused(self, rate: float) -> None:
        with pytest.raises(IdentificationError, match=f"top_rate={rate}: expected a share above 0, up to 1"):
            Lape(top_rate=rate)

    @pytest.mark.parametrize("name", ["filter_rate", "activation_bar_ratio"])
    @pytest.mark.parametrize("rate", [0, 1, 95])
    def test_a_quantile_outside_its_range_is_refused(self, name: str, rate: float) -> None:
        with pytest.raises(IdentificationError, match=f"{name}={rate}: expected a share"):
            Lape(**{name: rate})

    def test_one_language_cannot_be_compared(self) -> None:
        with pytest.raises(IdentificationError, match="give two or more, not ind_Latn"):
            Lape().check(["ind_Latn"])

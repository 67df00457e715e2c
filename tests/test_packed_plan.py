"""The plan of packed scoring: every token of every request is scored once, behind its own context and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lm_eval_amplify.scoring.memory import Footprint, budget_of_stock
from lm_eval_amplify.scoring.plan import Limits, plan
from lm_eval_amplify.scoring.requests import Scored
from lm_eval_amplify.scoring.tries import Forest

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=7)
SCORED = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=12).map(
    lambda pairs: [Scored.cut(context, continuation, 12) for context, continuation in pairs]
)
LIMITS = st.builds(Limits, st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))


def walked(group, before=()):
    """Every row with the tokens and roles of its prefix."""
    if group.prefix is not None:
        yield group.prefix, before
        roles = group.prefix.roles if group.prefix.roles is not None else [None] * len(group.prefix)
        before = (*before, *zip(group.prefix.tokens.tolist(), roles, strict=True))
    for row in group.rows:
        yield row, before
    for inner in group.groups:
        yield from walked(inner, before)


def path(row, place):
    """The places from the row's first token to this one."""
    places = []
    while place >= 0:
        places.append(place)
        place = row.parents[place]
    return places[::-1]


@settings(max_examples=100, deadline=None)
@given(SCORED, LIMITS, st.booleans(), st.booleans(), st.booleans())
def test_each_token_is_scored_once_behind_its_own_context(scored, limits, trees, cache, by_role):
    forest = Forest.of(scored, range(len(scored)), by_role=by_role)
    found = {}
    for row, before in walked(plan(forest, scored, limits, trees=trees, cache=cache)):
        assert len(row) > 0
        for place, target, request in zip(row.places, row.targets, row.requests, strict=True):
            own = path(row, place)
            one = scored[request]
            tokens = [token for token, _ in before] + row.tokens[own].tolist()
            offset = len(tokens) - 1 - one.first
            assert tokens == one.tokens[: len(tokens)].tolist()
            assert target == one.targets[offset]
            assert row.positions[own].tolist() == list(range(len(before), len(tokens)))
            if by_role:
                roles = [role for _, role in before] + row.roles[own].tolist()
                assert roles == [position >= one.first for position in range(len(tokens))]
            assert (request, offset) not in found
            found[request, offset] = True
    assert len(found) == sum(len(one.targets) for one in scored)


@settings(max_examples=40, deadline=None)
@given(SCORED, LIMITS)
def test_a_token_sees_its_ancestors_and_itself(scored, limits):
    forest = Forest.of(scored, range(len(scored)))
    for row in plan(forest, scored, limits._replace(worth=0), trees=True, cache=True).all_rows():
        ends = row.ends()
        for place in range(len(row)):
            assert np.flatnonzero(ends[: place + 1] > place).tolist() == path(row, place)


@settings(max_examples=40, deadline=None)
@example([Scored.cut([1, 0, 0], [1], 9), Scored.cut([1], [0, 0, 0, 0, 1], 9), Scored.cut([0], [1], 9)], Limits(9, 6, 0))
@given(SCORED, LIMITS)
def test_rows_of_several_inputs_keep_to_their_limits(scored, limits):
    forest = Forest.of(scored, range(len(scored)))
    for row in plan(forest, scored, limits, trees=True, cache=False).rows:
        if not row.is_plain:
            leaves = [place for place in range(len(row)) if place not in row.parents]
            common = set.intersection(*(set(path(row, leaf)) for leaf in leaves))
            assert len(row) - len(common) <= limits.tokens
            assert len(np.unique(row.places)) <= limits.scored


@settings(max_examples=40, deadline=None)
@given(SCORED, LIMITS)
def test_nothing_is_computed_twice_that_fits_in_a_row_or_is_worth_a_prefix(scored, limits):
    forest = Forest.of(scored, range(len(scored)))
    size = {}
    for cache in (False, True):
        for tokens in (limits.tokens, 999):
            rows = plan(forest, scored, Limits(tokens, 999, 0), trees=True, cache=cache).all_rows()
            size[cache, tokens] = sum(map(len, rows))
    smallest = sum(map(len, forest.inputs)) - forest.shared.sum()
    assert size[False, 999] == size[True, 999] == smallest
    assert smallest <= size[True, limits.tokens] <= size[False, limits.tokens] <= sum(map(len, forest.inputs))


def test_a_prefix_of_many_rows_is_computed_once():
    """Forty questions behind the same five shots: rows hold a few questions each, the shots are in none of them."""
    scored = [Scored.cut([*range(1000), 2000 + n, *range(50)], [7], 4096) for n in range(40)]
    whole = plan(Forest.of(scored, range(40)), scored, Limits(192, 999, 32), trees=True, cache=True)
    (group,) = whole.groups
    assert whole.rows == []
    assert (len(group.prefix), group.length, group.groups) == (1000, 1000, [])
    assert sum(map(len, group.rows)) == 40 * 51
    assert max(map(len, group.rows)) <= 192


def test_a_request_is_cut_as_the_harness_cuts_it():
    whole = list(range(20))
    for cut in range(1, 20):
        one = Scored.cut(whole[:cut], whole[cut:], 20 - cut + 2)
        expected = whole[-(20 - cut + 3) :][:-1]
        assert one.tokens.tolist() == expected
        assert [expected[one.first + k] + 1 for k in range(20 - cut)] == one.targets.tolist() == whole[cut:]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), st.integers(1, 500), st.integers(1, 10**6), st.integers(1, 10**7))
def test_the_budget_of_a_batch_size_takes_no_more_than_the_harness(batch_size, longest, token, logits):
    import torch

    stock = batch_size * longest
    budget = budget_of_stock(Footprint(token, logits), torch.device("cuda"), batch_size, longest)
    assert budget.tokens * token + budget.scored * logits / 2 <= stock * (token + logits)
    assert min(budget) >= min(stock, 1)

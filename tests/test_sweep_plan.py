"""The grid of a study, and which units it comes to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_amplify.intervention import OPERATIONS, POSITIONS, Intervention
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.plan import Part, plan_sweep, plan_then
from lm_eval_amplify.sweep.store import Unit
from lm_eval_amplify.sweep.study import Controls, Interventions

LANGUAGES = ("est_Latn", "ind_Latn")
CONDITION = Condition(Intervention())

_CONDITIONS = st.builds(
    Condition,
    st.one_of(
        st.none(),
        st.builds(
            Intervention,
            operation=st.sampled_from(OPERATIONS),
            factor=st.sampled_from([0.0, 0.5, 1.0, 2.0, -1.0]),
            statistic=st.sampled_from(["max", "one", "batch_p10"]),
            layers=st.sampled_from(["all", "0", "1", "0-1", "0+1"]),
            positions=st.sampled_from(POSITIONS),
            others_operation=st.just("scale"),
            others_factor=st.sampled_from([0.0, 1.0]),
        ),
        st.builds(Intervention, operation=st.sampled_from(OPERATIONS), factor=st.sampled_from([1, 10.0])),
    ),
    st.sampled_from(["task", *LANGUAGES]),
    st.one_of(st.none(), st.integers(0, 2)),
)


@settings(max_examples=200, deadline=None)
@given(_CONDITIONS, _CONDITIONS)
def test_a_condition_survives_json_and_only_equal_ones_share_a_folder(one, other):
    unit = Unit("sweep", "task", one)
    assert Unit.of_dict(unit.as_dict()) == unit
    does_the_same = _does(one) == _does(other)
    assert (one.slug == other.slug) == does_the_same


def _does(condition):
    """What it does, as its signature says; without an intervention language and seed do not matter."""
    if condition.intervention is None:
        return None
    parts = condition.intervention.signature_parts | {"layers": condition.intervention.layers}
    return (tuple(sorted(parts.items())), condition.language, condition.seed)


def test_a_grid_has_every_combination_once():
    grid = Interventions(
        operation=["set", "scale"], statistic=["max", "p90"], factor=[1, 2], positions=["all", "prompt"]
    )
    labels = [one.label for one in grid.conditions(4)]
    assert len(labels) == len(set(labels)) == 2 * (2 * 2 + 2)  # scaling has no statistic
    assert "scale x 2, prompt positions" in labels


def test_per_layer_is_each_layer_by_itself():
    assert [one.label for one in Interventions(per_layer=True).conditions(3)] == [
        *("set max x 1, layer 0", "set max x 1, layer 1", "set max x 1, layer 2")
    ]
    some = Interventions(per_layer=True, layers=["0-1", 5]).conditions(8)
    assert [one.intervention.layers for one in some] == ["0", "1", "5"]


def paths(planned):
    return [one.unit.path for one in planned]


def test_both_sides_run_once_for_a_condition_and_its_controls():
    part = Part("lss", LANGUAGES, is_two_sided=True, amplify="self")
    planned = plan_sweep([part], [CONDITION], Controls(random=[0, 1]), LANGUAGES)
    assert paths(planned) == [
        "sweep/lss/set-max-1.0",
        "sweep/lss/set-max-1.0.random-0",
        "sweep/lss/set-max-1.0.random-1",
    ]
    assert all(one.targets is None and one.languages == LANGUAGES for one in planned)


def test_one_side_runs_unamplified_first_and_in_its_own_language():
    part = Part("xcopa", LANGUAGES, is_two_sided=False, amplify="self")
    planned = plan_sweep([part], [CONDITION], Controls(), LANGUAGES)
    assert paths(planned) == ["sweep/xcopa/unamplified", "sweep/xcopa/set-max-1.0"]
    assert paths(plan_sweep([part], [CONDITION], Controls(unamplified=False), LANGUAGES)) == ["sweep/xcopa/set-max-1.0"]


def test_a_task_of_a_language_that_is_no_target_is_not_amplified_in_it():
    part = Part("xcopa", (*LANGUAGES, "fra_Latn", None), is_two_sided=False, amplify="self")
    unamplified, amplified = plan_sweep([part], [CONDITION], Controls(), LANGUAGES)
    assert unamplified.languages == (*LANGUAGES, "fra_Latn", None)
    assert amplified.languages == (*LANGUAGES, None)


def test_cross_runs_the_tasks_of_other_languages_and_matrix_all():
    own = {"cross": (("ind_Latn", None), ("est_Latn", None)), "matrix": ((*LANGUAGES, None), (*LANGUAGES, None))}
    for amplify, languages in own.items():
        part = Part("ppl", (*LANGUAGES, None), is_two_sided=False, amplify=amplify)
        _, *planned = plan_sweep([part], [CONDITION], Controls(), LANGUAGES)
        assert paths(planned) == ["sweep/ppl/set-max-1.0.est_Latn", "sweep/ppl/set-max-1.0.ind_Latn"]
        assert tuple(one.languages for one in planned) == languages


def test_what_was_chosen_for_a_language_runs_with_its_neurons():
    chosen = {"est_Latn": CONDITION, "ind_Latn": Condition(Intervention("add", 2))}
    own = Part("xcopa", LANGUAGES, is_two_sided=False, amplify="self")
    both = Part("langid", LANGUAGES, is_two_sided=True, amplify="self")
    planned = plan_then([own, both], chosen, seeds=[3])
    assert paths(planned) == [
        "then/xcopa/unamplified",
        "then/xcopa/set-max-1.0.est_Latn",
        "then/xcopa/set-max-1.0.est_Latn.random-3",
        "then/xcopa/add-max-2.ind_Latn".replace("-2.", "-2.0."),
        "then/xcopa/add-max-2.0.ind_Latn.random-3",
        "then/langid/set-max-1.0.est_Latn",
        "then/langid/set-max-1.0.est_Latn.random-3",
        "then/langid/add-max-2.0.ind_Latn",
        "then/langid/add-max-2.0.ind_Latn.random-3",
    ]
    by_path = {one.unit.path: one for one in planned}
    assert by_path["then/xcopa/set-max-1.0.est_Latn"].languages == ("est_Latn",)
    assert by_path["then/langid/set-max-1.0.est_Latn"].languages == ("ind_Latn",)  # from other languages to this one
    assert by_path["then/langid/set-max-1.0.est_Latn"].targets == ("est_Latn",)
    assert plan_then([own], {}, seeds=[]) == []

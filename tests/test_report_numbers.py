"""The numbers of a study's report, worked by hand: LSS and its halves, changes and their tests, perplexity, shares."""

from __future__ import annotations

import csv
import io
import math

import pytest
from study_folders import NAN, UNAMPLIFIED, Made, choice, chosen, treatment

from lm_eval_amplify.report.study.changes import changes_of
from lm_eval_amplify.report.study.data import Band, StudyData
from lm_eval_amplify.report.study.perplexity import perplexity_matrices
from lm_eval_amplify.report.study.series import points_of, series_of
from lm_eval_amplify.report.study.shares import shares, written_of
from lm_eval_amplify.report.study.writing import make_report
from lm_eval_amplify.sweep.store import read_study

IND, EST, JPN = "ind_Latn", "est_Latn", "jpn_Jpan"


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path / "study", [IND, EST])


def data(path) -> StudyData:
    return StudyData(read_study(path))


def table(path, name) -> list[dict[str, str]]:
    content = make_report(read_study(path)).files[f"tables/{name}.csv"].decode()
    return list(csv.DictReader(io.StringIO(content)))


# LSS -----------------------------------------------------------------------------------------------------------------


def test_lss_is_over_the_half_that_is_reported_and_what_cannot_be_compared_is_left_out(made):
    #                                   0  1  2  3  4    5  6  7: odd numbers are reported
    made.put_lss(treatment(), {EST: {IND: [0, 1, 0, 1, NAN, 0, 1, 1]}})
    path = made.record(chosen({IND: choice(treatment().of_language(IND), 1 / 3, 0.75)}))
    (task,) = data(path).lss_tasks
    assert task.split == "half"
    assert task.lss(treatment(), IND) == 0.75
    assert task.lss(treatment(), IND, is_choosing=True) == 1 / 3
    assert task.pair(treatment(), EST, IND) == 0.75
    assert math.isnan(task.lss(treatment(), EST))


def test_a_study_without_a_choice_is_shown_on_all_facts(made):
    made.put_lss(treatment(), {EST: {IND: [0, 1, 0, 1]}})
    (task,) = data(made.record()).lss_tasks
    assert (task.split, task.lss(treatment(), IND)) == ("none", 0.5)


def test_a_choice_that_is_yet_to_come_keeps_its_half_for_the_report(made):
    made.put_lss(treatment(), {EST: {IND: [0, 1, 0, 1]}})
    study = {"choose": {"metric": "lss", "task": "amplify_lss", "split": "half"}}
    (task,) = data(made.record(study=study)).lss_tasks
    assert (task.lss(treatment(), IND), task.lss(treatment(), IND, is_choosing=True)) == (1, 0)


def test_base_languages_count_the_same_however_many_facts_they_have(made):
    made.put_lss(treatment(), {EST: {IND: [1, 1, 1, 1]}, JPN: {IND: [0, NAN, NAN, NAN]}})
    (task,) = data(made.record()).lss_tasks
    assert task.lss(treatment(), IND) == 0.5


def test_the_band_of_random_controls_is_the_range_over_their_seeds(made):
    made.put_lss(treatment(), {EST: {IND: [1, 1, 1, 1]}})
    for seed, steered in enumerate(([1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0])):
        made.put_lss(treatment().with_random_neurons(seed), {EST: {IND: steered}})
    (task,) = data(made.record()).lss_tasks
    assert task.band(treatment(), IND) == Band(0.5, 0.25, 0.75, 3)


def test_a_condition_of_one_language_says_nothing_of_another(made):
    made.put_lss(treatment().of_language(IND), {JPN: {IND: [1, 1], EST: [1, 1]}})
    (task,) = data(made.record()).lss_tasks
    assert (task.lss(treatment(), IND), task.targets) == (1, [IND])


def test_facts_of_a_task_that_runs_again_after_the_choice_count_once(made):
    made.put_lss(treatment(), {EST: {IND: [1, 0]}})
    made.put_lss(treatment().of_language(IND), {EST: {IND: [1, 0]}}, stage="then")
    (task,) = data(made.record()).lss_tasks
    assert task.reported[treatment(), None, EST, IND].facts == 2


def test_without_a_choice_the_best_on_the_choosing_half_is_shown(made):
    made.put_lss(treatment(1), {EST: {IND: [1, 0, 1, 0]}})
    made.put_lss(treatment(2), {EST: {IND: [0, 1, 0, 1]}})
    path = made.record(chosen({IND: choice(None)}))
    assert data(path).shown[IND] == (treatment(1), False)
    pairs = table(path, "lss-pairs")
    assert [(row["condition"], row["is_chosen"], row["lss"]) for row in pairs] == [("set max x 1", "0", "0.0")]


# Series --------------------------------------------------------------------------------------------------------------


def test_treatments_that_differ_in_the_factor_are_one_series(made):
    treatments = [treatment(2), treatment(0.5), treatment(2, "scale"), treatment(5, "scale", "mean")]
    series = series_of(treatments, "factor")
    assert [(one.label, [x for x, _ in one.treatments]) for one in series] == [
        ("set max", [0.5, 2]),
        ("scale", [2, 5]),
    ]
    assert series_of(treatments, "layer") == []


def test_treatments_of_single_layers_are_a_series_by_layer(made):
    treatments = [treatment(1), *(treatment(1, layers=str(layer)) for layer in (10, 2, 0))]
    (by_layer,) = series_of(treatments, "layer")
    assert (by_layer.label, [x for x, _ in by_layer.treatments]) == ("set max x 1", [0, 2, 10])
    (by_factor,) = series_of(treatments, "factor")
    assert (by_factor.label, by_factor.treatments) == ("set max", ((1, treatment(1)),))


def test_one_single_layer_is_no_series_by_layer():
    assert series_of([treatment(1, layers="3"), treatment(2, layers="3")], "layer") == []
    (series,) = series_of([treatment(1, layers="3"), treatment(2, layers="3")], "factor")
    assert series.label == "set max, layer 3"


def test_what_was_not_measured_is_no_point(made):
    made.put_lss(treatment(1), {EST: {IND: [1, 0]}})
    made.put_lss(treatment(2), {EST: {IND: [NAN, NAN]}})
    (task,) = data(made.record()).lss_tasks
    (series,) = series_of([treatment(1), treatment(2)], "factor")
    assert [(point.x, point.lss) for point in points_of(task, series, IND)] == [(1, 0.5)]


# Changes of tasks ----------------------------------------------------------------------------------------------------


def study_of_accuracy(made):
    """Indonesian loses six of ten documents, Estonian wins one and loses one."""
    made.put_accuracy(UNAMPLIFIED, {IND: [1] * 8 + [0, 0], EST: [1, 0] + [1] * 8})
    made.put_accuracy(treatment().of_language(IND), {IND: [0] * 6 + [1, 1, 0, 0], EST: [0, 1] + [1] * 8})
    return data(made.record(chosen({IND: choice(treatment().of_language(IND), 1, 1)})))


def test_the_change_of_a_task_is_paired_by_document_and_tested_by_mcnemar(made):
    self_language, cross_language = changes_of(study_of_accuracy(made)).single
    assert (self_language.relation, self_language.unamplified, self_language.amplified) == ("self", 0.8, 0.2)
    assert self_language.is_share
    found = self_language.difference
    assert (found.method, found.documents) == ("mcnemar", 10)
    assert found.difference == pytest.approx(-0.6)
    assert found.p == pytest.approx(2 / 2**6)  # six lost, none won
    # Of ten documents with -1 six times, 95 % of resamples have three to nine of them.
    assert (found.low, found.high) == pytest.approx((-0.9, -0.3))
    assert (cross_language.relation, cross_language.difference.difference, cross_language.difference.p) == (
        "cross",
        0,
        1,
    )


def test_holms_correction_is_over_all_tests_of_the_report(made):
    changes = changes_of(study_of_accuracy(made))
    assert [change.adjusted_p for change in changes.single] == pytest.approx([2 * 2 / 2**6, 1])


def test_random_controls_take_no_part_in_the_correction(made):
    made.put_accuracy(treatment().of_language(IND).with_random_neurons(0), {IND: [0] * 10, EST: [1] * 10})
    changes = changes_of(study_of_accuracy(made))
    assert [change.seed for change in changes.single] == [0, 0, None, None]
    assert [change.adjusted_p for change in changes.single] == [None, None, pytest.approx(4 / 2**6), 1]


def test_cross_language_is_the_mean_over_the_tasks_in_other_languages(made):
    made.put_accuracy(UNAMPLIFIED, {IND: [1, 1], EST: [1, 1], JPN: [1, 1, 1, 1]})
    made.put_accuracy(treatment().of_language(IND), {IND: [1, 1], EST: [0, 0], JPN: [1, 1, 1, 0]})
    study = data(made.record(chosen({IND: choice(treatment().of_language(IND), 1, 1)})))
    own, cross = changes_of(study).means
    assert (own.relation, own.tasks, own.difference.difference) == ("self", 1, 0)
    assert (cross.relation, cross.tasks, cross.difference.difference) == ("cross", 2, pytest.approx(-0.625))


def test_a_sweep_in_the_tasks_own_languages_is_self_language(made):
    made.put_accuracy(UNAMPLIFIED, {IND: [1, 1], EST: [1, 1]}, stage="sweep")
    for factor in (1, 2):
        made.put_accuracy(treatment(factor), {IND: [1, 0], EST: [0, 0]}, stage="sweep")
    study = data(made.record())
    assert [(one.relation, one.target, one.condition.label) for one in changes_of(study).single] == [
        ("self", IND, "set max x 1"),
        ("self", EST, "set max x 1"),
        ("self", IND, "set max x 2"),
        ("self", EST, "set max x 2"),
    ]


def test_of_a_grid_with_a_choice_only_what_was_chosen_is_tested(made):
    made.put_accuracy(UNAMPLIFIED, {IND: [1, 1]}, stage="sweep")
    for factor in (1, 2):
        made.put_accuracy(treatment(factor).of_language(IND), {IND: [1, 0]}, stage="sweep")
    study = data(made.record(chosen({IND: choice(treatment(2).of_language(IND), 1, 1)})))
    assert [one.condition for one in changes_of(study).single] == [treatment(2)]


# Perplexity and languages that are written ---------------------------------------------------------------------------


def test_the_perplexity_matrix_is_the_change_of_bits_per_byte(made):
    made.put_perplexity(UNAMPLIFIED, {IND: 1.0, JPN: 2.0}, stage="sweep")
    made.put_perplexity(treatment(1).of_language(IND), {IND: 1.5, JPN: 1.75}, stage="sweep")
    made.put_perplexity(treatment(2).of_language(IND), {IND: 9.0, JPN: 9.0}, stage="sweep")
    path = made.record(chosen({IND: choice(treatment(1).of_language(IND), 1, 1), EST: choice(None)}))
    (matrix,) = perplexity_matrices(data(path))
    assert (matrix.amplified, matrix.texts, matrix.is_limit) == ([IND], [IND, JPN], True)
    assert matrix.change.tolist() == [[0.5, -0.25]]
    rows = table(path, "perplexity")
    assert [(row["neurons_of"], row["texts_in"], row["change"]) for row in rows] == [
        (IND, IND, "0.5"),
        (IND, JPN, "-0.25"),
    ]


def test_what_ran_after_the_choice_is_shown_before_the_sweep(made):
    made.put_perplexity(UNAMPLIFIED, {IND: 1.0}, stage="sweep")
    made.put_perplexity(treatment().of_language(IND), {IND: 2.0}, stage="sweep")
    made.put_perplexity(treatment().of_language(IND), {IND: 3.0}, stage="then")
    path = made.record(chosen({IND: choice(treatment().of_language(IND), 1, 1)}))
    (matrix,) = perplexity_matrices(data(path))
    assert matrix.change.tolist() == [[2.0]]


def test_each_text_that_is_written_counts_once(made):
    texts = [(IND, JPN), (IND, "none"), (JPN, JPN), ("fra_Latn", JPN), ("none", JPN)]
    made.put_written(treatment().of_language(IND), JPN, {IND: texts})
    path = made.record(chosen({IND: choice(treatment().of_language(IND), 1, 1)}))
    amplified, unamplified = written_of(data(path))
    assert (amplified.side, shares([amplified])) == (
        "amplified",
        {"target": 40, "base": 20, "other": 20, "none": 20},
    )
    assert (unamplified.side, shares([unamplified])) == (
        "unamplified",
        {"target": 0, "base": 80, "other": 0, "none": 20},
    )


def test_random_controls_stand_beside_what_the_amplified_model_writes(made):
    for condition in (treatment().of_language(IND), treatment().of_language(IND).with_random_neurons(0)):
        made.put_written(condition, JPN, {IND: [(IND if condition.seed is None else JPN, JPN)]})
    path = made.record(chosen({IND: choice(treatment().of_language(IND), 1, 1)}))
    assert [(one.side, one.seed, shares([one])["target"]) for one in written_of(data(path))] == [
        ("amplified", None, 100),
        ("unamplified", None, 0),
        ("random neurons", 0, 0),
    ]

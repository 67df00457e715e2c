"""The choice: worked by hand on a few documents."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lm_eval_amplify.errors import StudyError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.results.files import ResultsFile
from lm_eval_amplify.sweep.choosing import Measured, Rule, damage_of, metric_of, summarise
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.halves import is_chosen_by, is_reported
from lm_eval_amplify.sweep.study import Bound

NAN = math.nan


def stored(values: dict[str, list[dict]], reported: dict[str, dict] | None = None) -> ResultsFile:
    """Results with samples: by task the metrics of each document."""
    samples = {
        task: [{"doc_id": i, "filter": "none", "metrics": list(own), **own} for i, own in enumerate(documents)]
        for task, documents in values.items()
    }
    content = {"results": reported or {task: {} for task in values}, "samples": samples}
    return ResultsFile(Path("results.json"), json.loads(json.dumps(content)))


def documents(results: ResultsFile):
    return lambda task: results.documents(task)["none"]


LSS = stored(
    {
        "lss_est_Latn": [{"lss_ind_Latn": value} for value in (1.0, 0.0, 1.0, 0.0, NAN, 1.0)],
        "lss_fra_Latn": [{"lss_ind_Latn": value} for value in (0.0, 1.0, 0.0, 1.0, 1.0, NAN)],
    }
)
LANGUAGES = {"lss_est_Latn": "est_Latn", "lss_fra_Latn": "fra_Latn"}


def value(results, languages, metric, target, half, *, split="half", is_two_sided):
    return metric_of(documents(results), languages, metric, target, split, half, is_two_sided=is_two_sided)


def lss(half, results=LSS, languages=LANGUAGES, target="ind_Latn", split="half"):
    return value(results, languages, "lss", target, half, split=split, is_two_sided=True)


def test_the_value_is_the_mean_over_tasks_of_one_half_of_the_documents():
    assert lss(is_chosen_by) == pytest.approx((2 / 2 + 1 / 3) / 2)  # documents 0, 2, 4; a NaN is left out
    assert lss(is_reported) == pytest.approx((1 / 3 + 2 / 2) / 2)
    assert lss(is_chosen_by, split="none") == pytest.approx((3 / 5 + 3 / 5) / 2)


def test_the_target_s_own_task_does_not_count():
    """It has no other target than the others, and its ``lss`` is their mean."""
    own = {"lss_ind_Latn": [{"lss_est_Latn": 0.0, "lss": 0.0}] * 6}
    both = stored(own | {task: [*LSS.content["samples"][task]] for task in LANGUAGES})
    languages = LANGUAGES | {"lss_ind_Latn": "ind_Latn"}
    for half in (is_chosen_by, is_reported):
        assert lss(half, both, languages) == lss(half)
        alone = lss(half, stored(own), {"lss_ind_Latn": "ind_Latn"})
        assert math.isnan(alone)  # a language that nothing else is steered to


def test_a_metric_of_one_side_is_that_of_the_tasks_in_the_language():
    results = stored({"xcopa_est_Latn": [{"acc": 1.0}, {"acc": 0.0}], "xcopa_ind_Latn": [{"acc": 0.0}, {"acc": 0.0}]})
    languages = {"xcopa_est_Latn": "est_Latn", "xcopa_ind_Latn": "ind_Latn"}
    assert value(results, languages, "acc", "est_Latn", is_chosen_by, is_two_sided=False) == 1.0
    assert value(results, languages, "acc", "est_Latn", is_reported, is_two_sided=False) == 0.0
    assert math.isnan(value(results, languages, "acc", "rus_Cyrl", is_reported, is_two_sided=False))


def test_a_metric_that_is_no_mean_is_refused():
    results = stored({"ppl_est_Latn": [{"bits_per_byte": [-3.0, 4]}]})
    with pytest.raises(StudyError, match="no mean over documents"):
        value(results, {"ppl_est_Latn": "est_Latn"}, "bits_per_byte", "est_Latn", is_chosen_by, is_two_sided=False)


def test_damage_is_the_mean_over_the_other_languages():
    old = stored({}, {"p_a": {"bits_per_byte,none": 2.0}, "p_b": {"bits_per_byte,none": 1.0}, "p_t": {}})
    new = stored({}, {"p_a": {"bits_per_byte,none": 3.0}, "p_b": {"bits_per_byte,none": 1.2}, "p_t": {}})
    languages = {"p_a": "est_Latn", "p_b": "fra_Latn", "p_t": "ind_Latn"}  # the target's own does not count
    ratio = damage_of(new, old, languages, "bits_per_byte", "ind_Latn", Bound(ratio=1.4))
    assert ratio == pytest.approx((1.5 + 1.2) / 2)
    difference = damage_of(new, old, languages, "bits_per_byte", "ind_Latn", Bound(difference=0.5))
    assert difference == pytest.approx((1.0 + 0.2) / 2)


def conditions(*measured: tuple[float, float | None]) -> list[Measured]:
    return [Measured(Condition(Intervention(factor=i)), *one) for i, one in enumerate(measured)]


@pytest.mark.parametrize(
    ("rule", "measured", "best"),
    [
        (Rule(True, None), [(0.5, None), (0.9, None), (NAN, None)], 1),
        (Rule(True, Bound(ratio=1.2)), [(0.5, 1.1), (0.9, 1.3), (0.6, 1.2)], 2),
        (Rule(True, Bound(difference=0.5)), [(0.5, 0.6), (0.9, NAN)], None),
        (
            Rule(True, Bound(ratio=1.2)),
            [(0.6, 1.1), (0.6, 1.05), (0.6, 1.05)],
            1,
        ),  # least damage, first
        (Rule(False, None), [(0.5, None), (0.9, None)], 0),
        (Rule(True, Bound(difference=-0.1), True), [(0.9, -0.2), (0.7, -0.1), (0.7, -0.05)], 2),  # an accuracy
        (Rule(True, None), [], None),
    ],
)
def test_the_best_that_is_allowed(rule, measured, best):
    found = rule.best(conditions(*measured))
    assert (None if found is None else int(found.condition.intervention.factor)) == best


def test_a_summary_leaves_out_what_is_not_known():
    assert summarise([0.5, NAN, 0.7]) == {"mean": pytest.approx(0.6), "min": 0.5, "max": 0.7}
    assert summarise([NAN]) is None

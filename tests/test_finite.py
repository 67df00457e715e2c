"""Answers that are not finite: named once, counted per task in the results, or the end of the run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tiny
import torch
from harness_runs import TYPES, XCOPA, everything, requests, samples, toys
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.models.finite import NonFiniteRows, NonFiniteText, is_finite
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile

BROKEN = "est_Latn"
ESTONIAN = {"amplify_xcopa_est_Latn": 10, "toy_loglikelihood": 5, "toy_loglikelihood_rolling": 5,
            "toy_generate_until": 5}  # fmt: skip


def content():
    """Neurons of which one language's statistics are so large that ten times them is infinite in float32."""
    whole = tiny.neurons("llama")
    own = whole.neurons[BROKEN]
    huge = LanguageNeurons(own.layer, own.index, {name: np.full_like(v, 1e38) for name, v in own.statistics.items()})
    return NeuronFile(whole.manifest, whole.neurons | {BROKEN: huge})


def broken(**arguments):
    given = {"tokenizer": tiny.tokenizer(), "neurons": content(), "factor": 10, "batch_size": 4} | arguments
    return AmplifiedHFLM(tiny.model("llama"), **given)


def counted(results):
    return {task: found["nonfinite,none"] for task, found in results["results"].items() if "nonfinite,none" in found}


def test_they_are_counted_per_task_and_the_first_of_each_is_named(evaluate, caplog):
    results = evaluate(broken(), None, everything(*TYPES))
    assert counted(results) == ESTONIAN
    warned = [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()]
    assert len(warned) == len(ESTONIAN)
    condition = "amplified for est_Latn (operation:set|factor:10.0|statistic:max|layers:all|positions:all)"
    tail = f"not finite, {condition}; the results count such requests as 'nonfinite'"
    assert all(line.endswith(tail) for line in warned)
    logged = samples(results)
    for task in ESTONIAN:
        (line,) = (line for line in warned if line.startswith(f"task '{task}', document "))
        document = int(line.removeprefix(f"task '{task}', document ").split(":")[0])
        (sample,) = (sample for sample in logged[task] if sample["doc_id"] == document)
        assert sample["doc"]["amplify_language"] == BROKEN
        assert ("the logits of the generated text are" if "generate" in task else "the loglikelihood") in line
        assert "(nan, " not in line


def test_a_run_without_any_counts_nothing(evaluate, caplog):
    results = evaluate(broken(language="ind_Latn", factor=1), None, toys())
    assert counted(results) == {}
    assert "finite" not in caplog.text


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_an_error_stops_the_run_at_once_and_names_task_document_and_condition(kind):
    lm = broken(on_nonfinite="error", batch_size=1)
    forwards = []
    lm.model.register_forward_hook(lambda *_: forwards.append(1))
    made = requests(kind, ["est_Latn"] * 9, task="xcopa_et")
    with pytest.raises(
        ModelError, match=r"task 'xcopa_et', document \d: .* not finite, amplified for est_Latn \("
    ) as e:
        getattr(lm, kind)(made, disable_tqdm=True)
    assert "\n" not in str(e.value)
    assert len(forwards) <= 12  # one request's, after a few in which the loop is tried: its tokens are generated first
    assert getattr(lm, kind)(requests(kind, ["ind_Latn"]), disable_tqdm=True)


def test_sampling_from_them_is_an_error_that_names_the_request():
    made = requests("generate_until", ["est_Latn"], task="xcopa_et")
    made[0].args[1].update(do_sample=True, temperature=1.0)
    with pytest.raises(ModelError, match=r"task 'xcopa_et', document 0: .* so that no token can be sampled"):
        broken().generate_until(made, disable_tqdm=True)


def test_both_sides_of_a_pair_are_watched_and_what_is_remembered_stays_known():
    lm = broken(language="est_Latn")
    for _ in range(2):
        amplified = lm.generate_until_amplified(requests("generate_until_amplified", ["est_Latn"]), disable_tqdm=True)
        assert not is_finite(amplified[0])
        plain = requests("generate_until_unamplified", ["est_Latn"])
        assert is_finite(lm.generate_until_unamplified(plain, disable_tqdm=True)[0])


def test_those_in_a_cache_are_counted_too_and_an_error_where_asked_for(evaluate, tmp_path):
    cache = str(tmp_path / "cache")
    arguments = {"language": "est_Latn"}
    every = dict.fromkeys(("toy_loglikelihood", "toy_loglikelihood_rolling", "toy_generate_until"), 15)
    assert counted(evaluate(broken(**arguments), None, toys(), use_cache=cache)) == every
    forwards = []
    lm = broken(**arguments)
    lm.model.register_forward_hook(lambda *_: forwards.append(1))
    assert counted(evaluate(lm, None, toys(), use_cache=cache)) == every
    assert forwards == []
    with pytest.raises(ModelError, match="not finite were found in a cache: 15 of task 'toy_loglikelihood', 15 of"):
        evaluate(broken(on_nonfinite="error", **arguments), None, toys(), use_cache=cache)


def test_a_plain_model_is_left_alone(evaluate):
    model = tiny.model("llama")
    model.lm_head.weight.data[:] = math.nan
    results = evaluate(HFLM(model, tokenizer=tiny.tokenizer()), None, toys("loglikelihood"))
    assert counted(results) == {}


def test_the_table_and_the_results_file_show_them(evaluate):
    from lm_eval.utils import handle_non_serializable, make_table

    results = evaluate(broken(), None, XCOPA)
    assert "nonfinite|" in make_table(results).replace(" ", "")
    written = json.loads(json.dumps(results, default=handle_non_serializable))
    assert written["results"]["amplify_xcopa_est_Latn"]["nonfinite,none"] == 10


@pytest.mark.parametrize(
    ("rows", "noted"),
    [
        ([[0.0, 1.0], [2.0, 3.0]], set()),
        ([[0.0, -math.inf], [2.0, 3.0]], set()),  # a token that is ruled out
        ([[0.0, 1.0], [math.nan, 3.0]], {"b"}),
        ([[math.inf, 1.0], [2.0, 3.0]], {"a"}),
        ([[-math.inf, -math.inf], [2.0, math.nan]], {"a", "b"}),
        ([[0.0, 1.0], [math.nan, 1.0], [0.0, 1.0], [0.0, 1.0]], {"a"}),  # two beams each
    ],
)
def test_rows_are_noted_whose_logits_are_not_finite_at_any_step(rows, noted):
    seen = NonFiniteRows()
    finite = torch.zeros(len(rows), 2)
    for scores in (finite, torch.tensor(rows), finite):
        assert seen(None, scores) is scores
    assert seen.among(["a", "b"]) == noted


def test_answers_of_every_type_are_told_apart():
    assert is_finite("text")
    assert is_finite((-3.5, True))
    assert is_finite(-3.5)
    assert not is_finite(NonFiniteText("text"))
    assert not is_finite((math.nan, True))
    assert not is_finite(-math.inf)

"""The harness's caches under amplification: right answers, whatever shares their path, or a refusal."""

from __future__ import annotations

import json

import pytest
import tiny
import toy_tasks
import yaml
from harness_runs import TYPES, XCOPA, evaluator, everything, requests, samples, toys
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from lss_by_hand import write_mirror as write_facts
from lss_runs import synthetic_rows

from lm_eval_amplify.errors import CacheError
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.task import AmplifyTask


@pytest.fixture
def requests_cache(tmp_path, monkeypatch):
    """The folder of ``--cache_requests``."""
    folder = tmp_path / "requests"
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(folder))
    return folder


# --use_cache ------------------------------------------------------------------------------------------------------


def test_one_response_cache_serves_every_condition_and_the_plain_model_right(evaluate, tmp_path):
    """Two factors, two languages, unamplified, another model and plain ``hf``, on all types of requests."""
    stock = HFLM(tiny.model("qwen2"), tokenizer=tiny.tokenizer(), batch_size=4)
    amplified = [
        {"factor": 2, "language": "ind_Latn"},
        {"factor": 3, "language": "ind_Latn"},
        {"factor": 2, "language": "est_Latn"},
        {"operation": "scale", "scorer": "stock"},
    ]
    content = tiny.neurons("qwen2")
    models = [stock, *(AmplifiedHFLM(stock.model, tokenizer=stock.tokenizer, neurons=content, batch_size=4, **one)
                       for one in amplified)]  # fmt: skip
    models += [AmplifiedHFLM(tiny.model("gpt2"), tokenizer=stock.tokenizer, batch_size=4)]
    tasks = [XCOPA[0], *toys()]
    fresh = [samples(evaluate(lm, None, tasks, limit=4)) for lm in models]
    assert len({json.dumps(right) for right in fresh}) == len(models) - 1, "an identity alone is as stock"
    cache = str(tmp_path / "cache")
    for _ in range(2):  # the second time from the cache
        for lm, right in zip(models, fresh, strict=True):
            assert samples(evaluate(lm, None, tasks, limit=4, use_cache=cache)) == right


def test_a_response_cache_is_refused_where_a_text_has_an_answer_for_each_language(
    evaluate, saved, neuron_path, tmp_path
):
    arguments = f"pretrained={saved('qwen2')},neurons={neuron_path('qwen2')}"
    with pytest.raises(CacheError, match="--use_cache knows answers by their text alone.*give language=<code>"):
        evaluate("amplified_hf", arguments, XCOPA, use_cache=str(tmp_path / "cache"))


def test_a_run_that_was_interrupted_goes_on_from_its_cache(evaluate, saved, neuron_path, tmp_path):
    lm = AmplifiedHFLM(
        str(saved("qwen2")), neurons=str(neuron_path("qwen2")), language="ind_Latn", device="cpu", batch_size=1,
        scorer="stock",
    )  # fmt: skip
    forwards = []
    lm.model.register_forward_hook(lambda *_: forwards.append(1))
    right = samples(evaluate(lm, None, everything(*TYPES)))
    whole = len(forwards)

    def stop(*_):
        if len(forwards) == whole // 2:
            raise KeyboardInterrupt

    forwards.clear()
    stopping = lm.model.register_forward_hook(stop)
    cache = str(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        evaluate(lm, None, everything(*TYPES), use_cache=cache)
    stopping.remove()
    forwards.clear()
    assert samples(evaluate(lm, None, everything(*TYPES), use_cache=cache)) == right
    assert 0 < len(forwards) < 0.7 * whole


def test_twins_never_reach_the_response_cache(saved, neuron_path):
    class Recorder:
        dbdict = None

        def add_partial(self, *arguments):
            raise AssertionError(arguments)

    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu")
    lm.cache_hook = recorder = Recorder()
    lm.loglikelihood_amplified(requests("loglikelihood_amplified"), disable_tqdm=True)
    lm.generate_until_unamplified(requests("generate_until_unamplified"), disable_tqdm=True)
    assert lm.cache_hook is recorder


# --cache_requests -------------------------------------------------------------------------------------------------


def test_cached_requests_of_the_harness_keep_their_languages_and_ours_their_data(
    evaluate, saved, neuron_path, mirror, tmp_path, requests_cache
):
    arguments = f"pretrained={saved('qwen2')},neurons={neuron_path('qwen2')},factor=2"
    tasks = everything(*TYPES)
    right = samples(evaluate("amplified_hf", arguments, tasks))
    assert samples(evaluate("amplified_hf", arguments, tasks, cache_requests=True)) == right
    assert len(list(requests_cache.iterdir())) == len(TYPES), "only the harness's own tasks are kept"
    assert samples(evaluate("amplified_hf", arguments, tasks, cache_requests=True)) == right
    other = toy_tasks.write_mirror(tmp_path / "other")
    for path in other.rglob("*.jsonl"):
        path.write_text("".join(reversed(path.read_text(encoding="utf-8").splitlines(keepends=True))), "utf-8")
    ours = XCOPA[:1]
    elsewhere = samples(evaluator(other)("amplified_hf", arguments, ours, cache_requests=True))
    assert [sample["doc"] for sample in elsewhere[ours[0]]] == [sample["doc"] for sample in right[ours[0]]][::-1]


def test_cached_requests_do_not_hold_the_targets_of_another_run(tmp_path, requests_cache):
    lm = AmplifiedHFLM(tiny.model("qwen2"), tokenizer=tiny.tokenizer(), neurons=tiny.neurons("qwen2"))
    facts = write_facts(tmp_path / "facts", {"id": synthetic_rows()["id"]})
    for target in ("est_Latn", "tam_Taml"):
        results = evaluator(facts, targets=target)(lm, None, ["amplify_lss_mlama_ind_Latn"], cache_requests=True)
        assert f"lss_{target},none" in results["results"]["amplify_lss_mlama_ind_Latn"]
    assert not requests_cache.exists()


def test_every_task_of_ours_is_of_the_class_that_keeps_out_of_the_requests_cache():
    tasks = [path for path in tasks_folder().rglob("*.yaml") if "group" not in _plain(path)]
    assert len(tasks) > 20
    for path in tasks:
        assert issubclass(load_yaml(path, resolve_func=True)["class"], AmplifyTask), path


def _plain(path):
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!function", lambda *_: None)
    return yaml.load(path.read_text(encoding="utf-8"), Loader)

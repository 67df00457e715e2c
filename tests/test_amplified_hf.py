"""amplified_hf in the harness: stock where nothing is amplified, each request in its language where something is."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch
import toy_tasks
from harness_runs import (
    TYPES,
    XCOPA,
    assert_same_answers,
    everything,
    numbers,
    quick_batch_detection,
    requests,
    samples,
)
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.errors import InterventionError, LanguageError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models.arguments import refuse_misspelt
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import read_neurons, write_neurons
from lm_eval_amplify.provenance import signature


@pytest.fixture(scope="module")
def stock(evaluate, saved):
    """What ``--model hf`` gives on every kind of task, computed once per family."""
    return functools.cache(lambda family: evaluate("hf", f"pretrained={saved(family)}", everything(*TYPES)))


# Stock where nothing is amplified ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("own", ["operation=scale,factor=1,", "operation=add,factor=0,language=ind_Latn,", None])
def test_an_identity_and_a_run_without_neurons_equal_hf_bit_for_bit_where_stock_scores(
    evaluate, stock, saved, neuron_path, family, own
):
    arguments = f"pretrained={saved(family)}"
    amplified = f"{arguments},scorer=stock"
    if own is not None:
        amplified = f"{own}neurons={neuron_path(family)},{amplified}"
    ours = evaluate("amplified_hf", amplified, everything(*TYPES))
    assert samples(ours) == samples(stock(family))
    assert ours["results"] == stock(family)["results"]


@pytest.mark.parametrize(
    "options",
    [
        {"num_fewshot": 2},
        {"apply_chat_template": True},
        {"batch_size": "auto", "max_batch_size": 2},
        {"limit": 3},
    ],
    ids=str,
)
def test_the_harness_options_mean_what_they_mean_for_hf(evaluate, saved, neuron_path, options):
    with quick_batch_detection():
        _assert_they_mean_the_same(evaluate, saved, neuron_path, options)


def _assert_they_mean_the_same(evaluate, saved, neuron_path, options):
    arguments = f"pretrained={saved('qwen2')}"
    tasks = XCOPA if "num_fewshot" in options else everything(*TYPES)
    if "apply_chat_template" in options:
        options = options | {"fewshot_as_multiturn": True}
    stock = evaluate("hf", arguments, tasks, **options)
    arguments += f",neurons={neuron_path('qwen2')}"
    identity = evaluate("amplified_hf", f"{arguments},operation=scale,scorer=stock", tasks, **options)
    packed = evaluate("amplified_hf", f"{arguments},operation=scale", tasks, **options)
    amplified = evaluate("amplified_hf", arguments, tasks, **options)
    assert samples(identity) == samples(stock)
    for task, logged in samples(packed).items():
        assert_same_answers(logged, samples(stock)[task])
    assert samples(amplified) != samples(stock)
    assert [len(logged) for logged in samples(amplified).values()] == [len(x) for x in samples(stock).values()]


# Each request in its language -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_requests_of_each_language_run_amplified_in_it(evaluate, stock, saved, neuron_path, family):
    """language=task on mixed documents equals one run per fixed language, document for document."""
    arguments = f"pretrained={saved(family)},neurons={neuron_path(family)},factor=2"
    tasks = everything(*TYPES)
    mixed = samples(evaluate("amplified_hf", arguments, tasks))
    plain = samples(stock(family))
    fixed = {
        language: samples(evaluate("amplified_hf", f"{arguments},language={language}", tasks))
        for language in ("ind_Latn", "zho_Hans", "est_Latn")
    }
    different = 0
    for task, logged in mixed.items():
        for number, sample in enumerate(logged):
            alone = fixed[sample["doc"]["amplify_language"]][task][number]
            if "generate" in task:
                assert sample["resps"] == alone["resps"]
            else:
                assert torch.testing.assert_close(numbers(sample), numbers(alone), atol=2e-4, rtol=1e-5) is None
            different += sample["resps"] != plain[task][number]["resps"]
    assert different > 0.8 * sum(map(len, mixed.values()))


def test_a_batch_of_mixed_lengths_equals_one_by_one(evaluate, saved, neuron_path):
    arguments = f"pretrained={saved('gemma2')},neurons={neuron_path('gemma2')},operation=add"
    one = samples(evaluate("amplified_hf", arguments, everything(*TYPES), batch_size=1))
    many = samples(evaluate("amplified_hf", arguments, everything(*TYPES), batch_size=7))
    for task in one:
        assert_same_answers(one[task], many[task])


def test_a_tokenizer_that_pads_left_and_one_that_pads_right_give_the_same(evaluate):
    model, content = tiny.model("llama"), tiny.neurons("llama")
    left, right = (
        AmplifiedHFLM(model, tokenizer=tiny.tokenizer(side), neurons=content, factor=2, batch_size=7)
        for side in ("left", "right")
    )
    one = AmplifiedHFLM(model, tokenizer=tiny.tokenizer("right"), neurons=content, factor=2, batch_size=1)
    assert (left.tokenizer.padding_side, right.tokenizer.padding_side) == ("left", "right")
    answers = samples(evaluate(right, None, everything(*TYPES)))
    assert samples(evaluate(left, None, everything(*TYPES))) == answers
    for task, alone in samples(evaluate(one, None, everything(*TYPES))).items():
        assert_same_answers(alone, answers[task])


def test_the_order_of_requests_changes_no_answer(saved, neuron_path):
    lm = AmplifiedHFLM(str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu", batch_size=1)
    made = requests("loglikelihood", ["ind_Latn", "est_Latn", "ind_Latn", "zho_Hans", "est_Latn"])
    answers = lm.loglikelihood(made, disable_tqdm=True)
    again = lm.loglikelihood(made[::-1], disable_tqdm=True)[::-1]
    assert answers == again


def test_a_tasks_name_says_the_language_where_no_document_does(saved, neuron_path):
    lm = AmplifiedHFLM(str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu", batch_size=1)
    by_name = lm.loglikelihood(requests("loglikelihood", [None] * 3, task="xcopa_id"), disable_tqdm=True)
    by_column = lm.loglikelihood(requests("loglikelihood", ["ind_Latn"] * 3), disable_tqdm=True)
    assert by_name == by_column
    with pytest.raises(LanguageError, match="task 'hellaswag' has no language: .*give language=<code>"):
        lm.loglikelihood(requests("loglikelihood", [None], task="hellaswag"), disable_tqdm=True)
    with pytest.raises(LanguageError, match="task 'xcopa_it': the neuron file has no language 'ita_Latn'"):
        lm.loglikelihood(requests("loglikelihood", [None], task="xcopa_it"), disable_tqdm=True)


def test_batches_in_parts_are_found_for_small_groups_too(saved, neuron_path):
    lm = AmplifiedHFLM(
        str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu", batch_size="auto:4", max_batch_size=2
    )
    made = requests("loglikelihood", ["ind_Latn"] * 7 + ["est_Latn"])
    one = AmplifiedHFLM(str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu")
    answers = [torch.tensor([value for value, _ in m.loglikelihood(made, disable_tqdm=True)]) for m in (lm, one)]
    torch.testing.assert_close(*answers, atol=2e-4, rtol=1e-5)


def test_the_batch_of_the_longest_rows_is_found_once_for_all_groups(saved, neuron_path, monkeypatch):
    lm = AmplifiedHFLM(
        str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu", batch_size="auto", max_batch_size=2
    )
    calls = []
    call = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, *a, **k: calls.append(1) or call(self, *a, **k))
    lm.generate_until(requests("generate_until", ["ind_Latn", "est_Latn", "zho_Hans"]), disable_tqdm=True)
    assert len(calls) == 5  # the harness tries a size five times; generation itself calls the model otherwise


def test_a_group_and_its_tasks_run_in_their_languages(evaluate, saved, tmp_path):
    path = tmp_path / "n.safetensors"
    write_neurons(tiny.neurons("llama", tuple(toy_tasks.XCOPA_CONFIGS.values())), path)
    results = evaluate("amplified_hf", f"pretrained={saved('llama')},neurons={path}", ["amplify_xcopa"], limit=2)
    assert len(results["results"]) == 12
    few = tmp_path / "few.safetensors"
    write_neurons(tiny.neurons("llama"), few)
    with pytest.raises(LanguageError, match="no language 'ita_Latn'"):
        evaluate("amplified_hf", f"pretrained={saved('llama')},neurons={few}", ["amplify_xcopa"], limit=2)


def test_a_task_without_a_language_is_refused_before_another_is_scored(evaluate, saved, neuron_path, monkeypatch):
    monkeypatch.setattr(AmplifiedHFLM, "_loglikelihood_tokens", lambda *_a, **_k: pytest.fail("something was scored"))
    rows = [{"text": row["text"], "other": row["other"]} for row in toy_tasks._documents()["test"]]
    lost = toy_tasks.inline_task(
        "generate_until", custom_dataset=lambda **_: {"test": toy_tasks.datasets.Dataset.from_list(rows)}
    )
    arguments = f"pretrained={saved('llama')},neurons={neuron_path('llama')}"
    with pytest.raises(LanguageError, match="task 'toy_generate_until' has no language"):
        evaluate("amplified_hf", arguments, [XCOPA[0], lost])


# Both sides in one run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
@pytest.mark.parametrize("language", ["task", "tam_Taml"])
def test_the_twins_are_the_amplified_and_the_plain_model(saved, neuron_path, kind, language):
    lm = AmplifiedHFLM(
        str(saved("qwen2")),
        neurons=str(neuron_path("qwen2")),
        factor=3,
        language=language,
        device="cpu",
        scorer="stock",
    )
    stock = HFLM(str(saved("qwen2")), device="cpu")
    fixed = AmplifiedHFLM(
        str(saved("qwen2")),
        neurons=str(neuron_path("qwen2")),
        factor=3,
        language="ind_Latn",
        device="cpu",
        scorer="stock",
    )
    plain = getattr(stock, kind)(requests(kind), disable_tqdm=True)
    amplified = getattr(fixed, kind)(requests(kind), disable_tqdm=True)
    assert plain != amplified
    assert getattr(lm, f"{kind}_unamplified")(requests(f"{kind}_unamplified"), disable_tqdm=True) == plain
    # The document's language wins over a fixed one: a task asks for several targets.
    assert getattr(lm, f"{kind}_amplified")(requests(f"{kind}_amplified"), disable_tqdm=True) == amplified


def test_a_twin_without_a_column_takes_the_fixed_language(saved, neuron_path):
    options = {"neurons": str(neuron_path("qwen2")), "factor": 3, "device": "cpu"}
    lm = AmplifiedHFLM(str(saved("qwen2")), language="est_Latn", **options)
    own = lm.loglikelihood_amplified(requests("loglikelihood_amplified", [None] * 3), disable_tqdm=True)
    assert own == lm.loglikelihood(requests("loglikelihood", [None] * 3), disable_tqdm=True)
    task = AmplifiedHFLM(str(saved("qwen2")), **options)
    with pytest.raises(LanguageError, match="task 'toy' has no language"):
        task.loglikelihood_amplified(requests("loglikelihood_amplified", [None]), disable_tqdm=True)
    plain = AmplifiedHFLM(str(saved("qwen2")), device="cpu")
    with pytest.raises(LanguageError, match="compares the amplified with the unamplified model: give neurons="):
        plain.loglikelihood_amplified(requests("loglikelihood_amplified"), disable_tqdm=True)


def test_what_is_known_is_not_computed_again(saved, neuron_path, monkeypatch):
    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu", scorer="stock")
    calls = []
    call = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda self, *a, **k: calls.append(1) or call(self, *a, **k))
    plain = requests("loglikelihood_unamplified")
    first = lm.loglikelihood_unamplified(plain * 2, disable_tqdm=True)
    assert len(calls) == 3
    assert first[:3] == first[3:]
    lm.loglikelihood_amplified(requests("loglikelihood_amplified"), disable_tqdm=True)
    assert len(calls) == 6
    assert lm.loglikelihood_unamplified(plain, disable_tqdm=True) == first[:3]
    lm.loglikelihood_amplified(requests("loglikelihood_amplified"), disable_tqdm=True)
    assert len(calls) == 6


@pytest.mark.parametrize("options", [{"do_sample": True, "temperature": 2.0}, {"temperature": 2.0}], ids=str)
def test_sampled_generations_are_drawn_anew(saved, neuron_path, options):
    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu")
    sampled = [
        Instance("generate_until_amplified", {"amplify_language": "ind_Latn"},
                 ("Hujan", {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 2.0}), 0, ("t", 0, 1))
    ]  # fmt: skip
    torch.manual_seed(0)
    texts = {lm.generate_until_amplified(sampled * 2, disable_tqdm=True)[i] for i in (0, 1) for _ in range(2)}
    assert len(texts) > 1


# Provenance -------------------------------------------------------------------------------------------------------


def test_what_else_changes_scores_is_part_of_the_signature(saved, neuron_path):
    options = {"neurons": str(neuron_path("qwen2")), "device": "cpu", "batch_size": 3}
    plain = AmplifiedHFLM(str(saved("qwen2")), **options).get_model_info()["amplify"]
    short = AmplifiedHFLM(str(saved("qwen2")), max_length=64, **options).get_model_info()["amplify"]
    assert "hf" not in plain
    stock = AmplifiedHFLM(str(saved("qwen2")), scorer="stock", **options).get_model_info()["amplify"]
    assert (plain["scorer"], stock["scorer"]) == ("packed", "stock")
    assert short["hf"] == "max_length=64"
    changed = tiny.model("qwen2")
    changed.config._commit_hash = "c0ffee"
    before = AmplifiedHFLM(changed, tokenizer=tiny.tokenizer(), **options).get_model_info()["amplify"]["model"]
    changed.lm_head.weight.data.mul_(2)
    after = AmplifiedHFLM(changed, tokenizer=tiny.tokenizer(), **options).get_model_info()["amplify"]["model"]
    assert before != after


def test_results_carry_the_signature_and_its_parts(evaluate, saved, neuron_path):
    path = neuron_path("gpt2")
    arguments = f"pretrained={saved('gpt2')},neurons={path},language=id+Estonian,factor=2,layers=0-1"
    recorded = evaluate("amplified_hf", arguments, XCOPA[:1])["config"]["amplify"]
    assert recorded["neurons"] == f"sha256:{read_neurons(path).sha256}"
    assert {"language": "ind_Latn+est_Latn", "operation": "set", "statistic": "max", "factor": "2.0",
            "layers": "0+1", "mode": "hook", "scorer": "packed",
            "dtype": "float32"}.items() <= recorded.items()  # fmt: skip
    parts = {name: value for name, value in recorded.items() if name != "signature"}
    assert recorded["signature"] == signature(parts)
    assert recorded["model"].startswith("sha256:")
    stock = evaluate("amplified_hf", f"pretrained={saved('gpt2')}", XCOPA[:1])["config"]["amplify"]
    assert stock["model"] == recorded["model"]
    assert "neurons" not in stock


def test_other_weights_and_other_tokenizers_have_other_hashes(tmp_path, neuron_path):
    first = AmplifiedHFLM(tiny.model("llama"), tokenizer=tiny.tokenizer(), neurons=str(neuron_path("llama")))
    second = AmplifiedHFLM(tiny.model("llama", seed=1), tokenizer=tiny.tokenizer(), neurons=str(neuron_path("llama")))
    again = AmplifiedHFLM(tiny.model("llama"), tokenizer=tiny.tokenizer(), neurons=str(neuron_path("llama")))
    parts = [lm.get_model_info()["amplify"] for lm in (first, second, again)]
    assert parts[0]["model"] == parts[2]["model"] != parts[1]["model"]
    assert parts[0]["tokenizer"] == parts[1]["tokenizer"]


def test_the_model_is_by_default_that_of_the_neuron_file(saved, tmp_path, caplog):
    named = tmp_path / "n.safetensors"
    write_neurons(tiny.neurons("llama", name=str(saved("llama"))), named)
    assert AmplifiedHFLM(neurons=str(named), device="cpu").pretrained == str(saved("llama"))
    caplog.clear()
    write_neurons(tiny.neurons("llama", name="org/base"), named)
    AmplifiedHFLM(str(saved("llama")), neurons=str(named), device="cpu")
    assert f"found in org/base and amplify {saved('llama')}" in caplog.text


# Arguments -----------------------------------------------------------------------------------------------------------


def test_arguments_of_hf_and_of_transformers_are_not_taken_for_ours(saved, neuron_path):
    lm = AmplifiedHFLM(
        str(saved("llama")), neurons=str(neuron_path("llama")), device="cpu", dtype="bfloat16", revision="main",
        attn_implementation="eager", low_cpu_mem_usage=True, max_length=64, trust_remote_code=False,
    )  # fmt: skip
    assert lm.model.dtype == torch.bfloat16
    assert lm.model.config._attn_implementation == "eager"


def test_no_argument_of_transformers_models_is_taken_for_a_misspelt_one_of_ours():
    import inspect

    import transformers

    names = {"attn_implementation", "device_map", "load_in_4bit", "quantization_config", "token", "state_dict"}
    for config in ("Qwen2Config", "LlamaConfig", "Gemma2Config", "GPT2Config", "MistralConfig", "BloomConfig"):
        names |= set(inspect.signature(getattr(transformers, config).__init__).parameters)
    refuse_misspelt(names, AmplifiedHFLM, HFLM)


def test_a_request_to_amplify_without_neurons_is_refused(saved):
    lm = AmplifiedHFLM(str(saved("llama")), device="cpu")
    with pytest.raises(InterventionError, match="give neurons="):
        lm.amplified_as(("ind_Latn",))
    assert lm.intervention == Intervention()

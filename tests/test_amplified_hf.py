"""amplified_hf in the harness: stock where nothing is amplified, each request in its language where something is."""

from __future__ import annotations

import functools
import json

import lm_eval
import lm_eval.tasks
import pytest
import tiny
import torch
import toy_tasks
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.errors import AmplifyError, InterventionError, LanguageError
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.models import hf
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import read_neurons, write_neurons
from lm_eval_amplify.provenance import signature
from lm_eval_amplify.resources import tasks_folder

XCOPA = ["amplify_xcopa_ind_Latn", "amplify_xcopa_zho_Hans", "amplify_xcopa_est_Latn"]
TYPES = ("loglikelihood", "loglikelihood_rolling", "generate_until")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_tasks.write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def evaluate(mirror):
    """simple_evaluate on our tasks and inline ones, without the harness's thirteen thousand."""
    manager = lm_eval.tasks.TaskManager(
        include_path=str(tasks_folder()), include_defaults=False, metadata={"data_dir": str(mirror)}
    )

    def run(model, model_args, tasks, **options):
        return lm_eval.simple_evaluate(
            model,
            model_args=model_args if isinstance(model, str) else None,
            tasks=tasks,
            task_manager=manager,
            device="cpu",
            bootstrap_iters=0,
            **{"batch_size": 4} | options,
        )

    return run


@pytest.fixture(scope="module")
def stock(evaluate, saved):
    """What ``--model hf`` gives on every kind of task, computed once per family."""
    return functools.cache(lambda family: evaluate("hf", f"pretrained={saved(family)}", everything(*TYPES)))


def samples(results):
    """Everything that was logged, by task; the documents' text is compared with it."""
    return json.loads(json.dumps(results["samples"], default=str))


def everything(*types):
    return [*XCOPA, *(toy_tasks.inline_task(kind) for kind in types)]


def requests(kind, languages=("ind_Latn",) * 3, task="toy"):
    rows = toy_tasks._documents()["test"]
    arguments = {
        "loglikelihood": lambda row: (row["text"], " " + row["other"]),
        "loglikelihood_rolling": lambda row: (row["text"],),
        "generate_until": lambda row: (row["text"], {"until": ["\n"], "max_gen_toks": 6}),
    }[kind.removesuffix("_amplified").removesuffix("_unamplified")]
    return [
        Instance(kind, {"amplify_language": language} if language else {}, arguments(rows[i]), 0, (task, i, 1))
        for i, language in enumerate(languages)
    ]


# Stock where nothing is amplified ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("own", ["operation=scale,factor=1,", "operation=add,factor=0,language=ind_Latn,", None])
def test_an_identity_and_a_run_without_neurons_equal_hf_bit_for_bit(evaluate, stock, saved, neuron_path, family, own):
    arguments = f"pretrained={saved(family)}"
    amplified = arguments if own is None else f"{own}neurons={neuron_path(family)},{arguments}"
    ours = evaluate("amplified_hf", amplified, everything(*TYPES))
    assert samples(ours) == samples(stock(family))
    assert ours["results"] == stock(family)["results"]


@pytest.mark.parametrize(
    "options",
    [{"num_fewshot": 2}, {"apply_chat_template": True}, {"batch_size": "auto"}, {"limit": 3}],
    ids=str,
)
def test_the_harness_options_mean_what_they_mean_for_hf(evaluate, saved, neuron_path, options):
    arguments = f"pretrained={saved('qwen2')}"
    tasks = XCOPA if "num_fewshot" in options else everything(*TYPES)
    if "apply_chat_template" in options:
        options = options | {"fewshot_as_multiturn": True}
    stock = evaluate("hf", arguments, tasks, **options)
    identity = evaluate("amplified_hf", f"{arguments},neurons={neuron_path('qwen2')},operation=scale", tasks, **options)
    amplified = evaluate("amplified_hf", f"{arguments},neurons={neuron_path('qwen2')}", tasks, **options)
    assert samples(identity) == samples(stock)
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


def numbers(sample):
    return torch.tensor([float(resp[0][0] if isinstance(resp[0], list) else resp[0]) for resp in sample["resps"]])


def test_a_batch_of_mixed_lengths_equals_one_by_one(evaluate, saved, neuron_path):
    arguments = f"pretrained={saved('gemma2')},neurons={neuron_path('gemma2')},operation=add"
    one = samples(evaluate("amplified_hf", arguments, everything(*TYPES), batch_size=1))
    many = samples(evaluate("amplified_hf", arguments, everything(*TYPES), batch_size=7))
    for task in one:
        for alone, together in zip(one[task], many[task], strict=True):
            if "generate" in task:
                assert alone["resps"] == together["resps"]
            else:
                torch.testing.assert_close(numbers(alone), numbers(together), atol=2e-4, rtol=1e-5)


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
    monkeypatch.setattr(HFLM, "_model_call", lambda *_a, **_k: pytest.fail("something was scored"))
    rows = [{"text": row["text"], "other": row["other"]} for row in toy_tasks._documents()["test"]]
    lost = toy_tasks.inline_task(
        "generate_until", custom_dataset=lambda **_: {"test": toy_tasks.datasets.Dataset.from_list(rows)}
    )
    arguments = f"pretrained={saved('llama')},neurons={neuron_path('llama')}"
    with pytest.raises(LanguageError, match="task 'toy_generate_until' has no language"):
        evaluate("amplified_hf", arguments, [XCOPA[0], lost])


def test_an_exception_in_a_run_leaves_the_model_unamplified(saved, neuron_path, monkeypatch):
    lm = AmplifiedHFLM(
        str(saved("llama")), neurons=str(neuron_path("llama")), operation="scale", factor=3, device="cpu"
    )
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    call = HFLM._model_call

    def fail(self, *arguments, **options):
        call(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(HFLM, "_model_call", fail)
    with pytest.raises(KeyboardInterrupt):
        lm.loglikelihood(requests("loglikelihood"), disable_tqdm=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert not any(module._forward_hooks for module in lm.model.modules())


# Both sides in one run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
@pytest.mark.parametrize("language", ["task", "tam_Taml"])
def test_the_twins_are_the_amplified_and_the_plain_model(saved, neuron_path, kind, language):
    lm = AmplifiedHFLM(
        str(saved("qwen2")), neurons=str(neuron_path("qwen2")), factor=3, language=language, device="cpu"
    )
    stock = HFLM(str(saved("qwen2")), device="cpu")
    fixed = AmplifiedHFLM(
        str(saved("qwen2")), neurons=str(neuron_path("qwen2")), factor=3, language="ind_Latn", device="cpu"
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
    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu")
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


# Caches -----------------------------------------------------------------------------------------------------------


def test_one_response_cache_serves_every_condition_and_the_plain_model_right(evaluate, saved, neuron_path, tmp_path):
    arguments = f"pretrained={saved('qwen2')}"
    neurons = f"{arguments},neurons={neuron_path('qwen2')}"
    runs = [
        ("amplified_hf", f"{neurons},factor=2,language=ind_Latn"),
        ("amplified_hf", f"{neurons},factor=3,language=ind_Latn"),
        ("amplified_hf", f"{neurons},factor=2,language=est_Latn"),
        ("hf", arguments),
        ("amplified_hf", f"{neurons},operation=scale"),
    ]
    fresh = [samples(evaluate(*run, XCOPA)) for run in runs]
    cache = str(tmp_path / "cache")
    for _ in range(2):  # the second time from the cache
        for run, right in zip(runs, fresh, strict=True):
            assert samples(evaluate(*run, XCOPA, use_cache=cache)) == right


def test_a_response_cache_is_refused_where_a_text_has_an_answer_for_each_language(
    evaluate, saved, neuron_path, tmp_path
):
    arguments = f"pretrained={saved('qwen2')},neurons={neuron_path('qwen2')}"
    with pytest.raises(AmplifyError, match="--use_cache knows answers by their text alone.*give language=<code>"):
        evaluate("amplified_hf", arguments, XCOPA, use_cache=str(tmp_path / "cache"))


def test_what_else_changes_scores_is_part_of_the_signature(saved, neuron_path):
    options = {"neurons": str(neuron_path("qwen2")), "device": "cpu", "batch_size": 3}
    plain = AmplifiedHFLM(str(saved("qwen2")), **options).get_model_info()["amplify"]
    short = AmplifiedHFLM(str(saved("qwen2")), max_length=64, **options).get_model_info()["amplify"]
    assert "hf" not in plain
    assert short["hf"] == "max_length=64"
    changed = tiny.model("qwen2")
    changed.config._commit_hash = "c0ffee"
    before = AmplifiedHFLM(changed, tokenizer=tiny.tokenizer(), **options).get_model_info()["amplify"]["model"]
    changed.lm_head.weight.data.mul_(2)
    after = AmplifiedHFLM(changed, tokenizer=tiny.tokenizer(), **options).get_model_info()["amplify"]["model"]
    assert before != after


def test_a_process_whose_share_is_cached_is_not_waited_for(saved, neuron_path, monkeypatch):
    """Under a fixed language nothing is agreed on: a process that the cache has answered does not come to agree."""
    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), language="ind_Latn", device="cpu")
    lm._world_size = 2
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda *_: pytest.fail("waited for another process"))
    assert len(lm.loglikelihood(requests("loglikelihood"), disable_tqdm=True)) == 3


def test_twins_never_reach_the_harness_cache(saved, neuron_path):
    class Recorder:
        dbdict = None

        def add_partial(self, *arguments):
            raise AssertionError(arguments)

    lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu")
    lm.cache_hook = recorder = Recorder()
    lm.loglikelihood_amplified(requests("loglikelihood_amplified"), disable_tqdm=True)
    lm.generate_until_unamplified(requests("generate_until_unamplified"), disable_tqdm=True)
    assert lm.cache_hook is recorder


# Provenance -------------------------------------------------------------------------------------------------------


def test_results_carry_the_signature_and_its_parts(evaluate, saved, neuron_path):
    path = neuron_path("gpt2")
    arguments = f"pretrained={saved('gpt2')},neurons={path},language=id+Estonian,factor=2,layers=0-1"
    recorded = evaluate("amplified_hf", arguments, XCOPA[:1])["config"]["amplify"]
    assert recorded["neurons"] == f"sha256:{read_neurons(path).sha256}"
    assert {"language": "ind_Latn+est_Latn", "operation": "set", "statistic": "max", "factor": "2.0",
            "layers": "0+1", "mode": "hook", "dtype": "float32"}.items() <= recorded.items()  # fmt: skip
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


# Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neurons": "nowhere.safetensors"}, "no neuron file 'nowhere.safetensors'"),
        ({"language": "fra_Latn"}, "no language 'fra_Latn'; it has est_Latn"),
        ({"language": "ind_Latm"}, "no language 'ind_Latm'.*did you mean 'ind_Latn'"),
        ({"language": "ind_Latn+indo"}, "unknown language 'indo'"),
        ({"language": ""}, "language=''"),
        ({"statistic": "p90"}, "no statistic 'p90'; it has max, sentence_median"),
        ({"mode": "fold"}, "mode=fold with operation 'set'"),
        ({"mode": "fast"}, "mode=fast: expected auto, fold, hook"),
        ({"scorer": "packed"}, "scorer=packed: expected stock"),
        ({"factor": float("nan")}, "factor=nan"),
        ({"factor": "big"}, "factor='big'"),
        ({"layers": "0-3"}, "layers=0-3: layer 3 is out of range"),
        ({"factr": 2}, r"unknown argument 'factr' \(did you mean 'factor'"),
        ({"operatoin": "set"}, "did you mean 'operation'"),
        ({"neuron": "x"}, "did you mean 'neurons'"),
        ({"stat": "max"}, "did you mean 'statistic'"),
        ({"positions": "generated"}, "argument 'positions' is not in this version"),
        ({"pretrained": None}, "give pretrained=<model>: no neuron file names the model"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_one_clear_line_before_the_model_is_loaded(
    saved, neuron_path, monkeypatch, arguments, message
):
    monkeypatch.setattr(HFLM, "__init__", lambda *_a, **_k: pytest.fail("the model was loaded"))
    given = {
        "pretrained": str(saved("llama")),
        "neurons": str(neuron_path("llama")),
        "device": "cpu",
    } | arguments
    with pytest.raises(AmplifyError, match=message) as caught:
        AmplifiedHFLM(**given)
    assert "\n" not in str(caught.value)


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
    hf._refuse_misspelt(dict.fromkeys(names))


def test_a_file_of_another_model_is_refused(saved, neuron_path):
    with pytest.raises(AmplifyError, match="not of this model: .*intermediate_size=48, the model has 64"):
        AmplifiedHFLM(str(saved("gpt2")), neurons=str(neuron_path("llama")), device="cpu")


def test_layers_without_neurons_are_warned_of(saved, tmp_path, caplog):
    path = tmp_path / "n.safetensors"
    write_neurons(tiny.neurons("llama", per_layer=0), path)
    AmplifiedHFLM(str(saved("llama")), neurons=str(path), language="ind_Latn", device="cpu")
    assert "ind_Latn: no neuron to amplify" in caplog.text


def test_a_request_to_amplify_without_neurons_is_refused(saved):
    lm = AmplifiedHFLM(str(saved("llama")), device="cpu")
    with pytest.raises(InterventionError, match="give neurons="):
        lm.amplified_as(("ind_Latn",))
    assert lm.intervention == Intervention()

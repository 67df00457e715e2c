"""Generation by a loop of our own gives the texts of HFLM, each as if it were generated alone."""

from __future__ import annotations

import logging

import generating
import pytest
import tiny
import torch
from generating import answers, mixed, own, request, rows_of_passes, stock, why_not
from harness_runs import quick_batch_detection, samples, toys
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from lm_eval_amplify.generation import rows as generation_rows
from lm_eval_amplify.models.hf import AmplifiedHFLM


@pytest.fixture(scope="module")
def llama():
    return tiny.model("llama")


@pytest.fixture(autouse=True)
def nothing_is_left_to_transformers(caplog):
    caplog.set_level(logging.INFO, logger="lm_eval.amplified_hf")
    yield
    assert why_not(caplog.get_records("call")) == []


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_text_is_that_of_hf_and_finished_rows_leave(family):
    model = tiny.model(family)
    expected = answers(stock(model), mixed())
    assert len(set(expected)) > 5
    rows = rows_of_passes(model)
    # In HFLM's batches the text that is too much is cut off.
    assert answers(stock(model, batch_size=5), mixed()) == expected
    stocks = sum(rows)
    rows.clear()
    assert answers(own(model), mixed()) == expected
    assert sum(rows[6:]) < 0.95 * stocks  # the first are the probe's
    assert answers(own(model, batch_size=1), mixed()) == expected


@pytest.mark.parametrize("operation", ["set", "scale"])
def test_amplified_texts_are_those_of_the_amplified_model_in_hfs_loop(operation):
    model = tiny.model("gemma2")
    amplified = {"neurons": tiny.neurons("gemma2"), "operation": operation, "factor": 3, "language": "ind_Latn"}
    expected = answers(AmplifiedHFLM(model, tokenizer=tiny.tokenizer(), batch_size=1, **amplified), mixed())
    assert answers(own(model, **amplified), mixed()) == expected
    assert answers(own(model), mixed()) != expected


POSITIONED = [
    {"positions": "prompt"},
    {"positions": "generated"},
    {"statistic": "running_max"},
    {"statistic": "batch_median", "positions": "generated"},
]


@pytest.mark.parametrize("options", POSITIONED, ids=str)
def test_positions_and_statistics_of_the_running_input_stay_those_of_their_rows(llama, options):
    amplified = {"neurons": tiny.neurons("llama"), "factor": 2, "language": "ind_Latn"} | options
    expected = answers(AmplifiedHFLM(llama, tokenizer=tiny.tokenizer(), batch_size=1, **amplified), mixed())
    assert answers(own(llama, **amplified), mixed()) == expected
    assert answers(own(llama, **amplified | {"positions": "all", "statistic": "max"}), mixed()) != expected


# Beside the greatest length: a prompt longer than gemma2's sliding window of 64, and longer than the model can read.
@pytest.mark.parametrize("family", ["gemma2", "llama"])
@pytest.mark.parametrize("tokens", [1, 40])
def test_long_prompts_are_those_of_hf(family, tokens):
    model = tiny.model(family)
    long = [generating.SENTENCES[3] * count for count in (1, 3, 8)]
    requests = [request(one, until=["e"], max_gen_toks=tokens) for one in [*long, *generating.SENTENCES]]
    assert answers(own(model), requests) == answers(stock(model), requests)


@pytest.mark.parametrize(
    "options",
    [
        {"think_end_token": "e"},
        {"think_end_token": 70},
        {"max_length": 40},
        {"max_length": 40, "truncation": True},
        {"add_bos_token": True},
        {"mixed_precision_dtype": "bfloat16"},
    ],
    ids=str,
)
def test_the_arguments_of_hf_mean_what_they_mean_there(llama, options):
    rows = 1 if "mixed_precision_dtype" in options else 5  # which rounds otherwise in other batches
    assert answers(own(llama, rows, **options), mixed()) == answers(stock(llama, **options), mixed())


@pytest.mark.parametrize(
    "options",
    [
        {"until": "a"},
        {"until": [""]},
        {"until": ["<|end|>", "zzzz"]},
        {},
        {"max_gen_toks": 1},
        {"max_new_tokens": 3},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"min_length": 30},
        {"temperature": 0.0, "do_sample": False},
        {"max_length": 30},
    ],
    ids=str,
)
def test_the_arguments_of_a_request_mean_what_they_mean_in_hf(llama, options):
    requests = [request(one, **{"max_gen_toks": 20} | options) for one in generating.SENTENCES]
    if "max_length" in options:  # of prompt and text, so that it depends on a batch's padding
        requests = requests[:1]
    assert answers(own(llama), requests) == answers(stock(llama), requests)


def test_a_row_ends_at_the_token_of_the_model_that_the_tokenizer_does_not_end_at(llama):
    """HFLM alone; in its batches such a row goes on to the end of the others, and keeps what it has written."""
    other = tiny.model("llama")
    (first,) = other.generate(torch.tensor([[50, 60, 70]]), max_length=10, pad_token_id=1).tolist()
    other.generation_config.eos_token_id = [first[6]]
    expected = answers(stock(other), mixed())
    assert expected != answers(stock(llama), mixed())
    assert answers(own(other), mixed()) == expected


texts = st.lists(st.sampled_from([*generating.SENTENCES, "keran", " ", "dlo a"]), min_size=1, max_size=3).map("".join)
ends = st.lists(st.sampled_from(["\n", " ", "a", "ir", "ல்", "。", "<|end|>", "wa ", "e, "]), max_size=3, unique=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(texts, ends, st.integers(1, 12)), min_size=1, max_size=8), st.integers(1, 8))
def test_whatever_is_asked_for_together_gets_what_it_gets_alone(llama, asked, batch_size):
    requests = [request(text, until=list(until), max_gen_toks=tokens) for text, until, tokens in asked]
    assert answers(own(llama, batch_size), requests) == answers(stock(llama), requests)


def test_runs_of_the_harness_log_the_same(evaluate, saved, neuron_path):
    def run(is_own, **options):
        lm = AmplifiedHFLM(str(saved("qwen2")), neurons=str(neuron_path("qwen2")), device="cpu", **options)
        if is_own:
            lm.use_own_generation()
        return samples(evaluate(lm, None, toys("generate_until")))

    expected = run(False, batch_size=1)
    assert run(True, batch_size=4) == expected
    with quick_batch_detection():
        assert run(True, batch_size="auto", max_batch_size=4) == expected


def test_answers_enter_the_harness_cache(llama, tmp_path):
    kept = []
    lm = own(llama)
    lm.cache_hook.add_partial = lambda *entry: kept.append(entry)
    expected = answers(lm, mixed())
    assert sorted(answer for _, _, answer in kept) == sorted(expected)


# The cache ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(1, 40), max_size=6), st.integers(0, 120), st.randoms())
def test_a_cache_with_room_holds_what_transformers_cache_holds(prompt, steps, limit, random):
    plain, roomy = DynamicCache(), DynamicCache()
    rows = 5

    def add(length):
        keys, values = torch.randn(rows, 2, length, 3), torch.randn(rows, 2, length, 4)
        for found, expected in zip(roomy.update(keys, values, 0), plain.update(keys, values, 0), strict=True):
            assert torch.equal(found, expected)

    add(prompt)
    generation_rows.give_room(roomy, limit)
    assert isinstance(roomy.layers[0], generation_rows.RoomyLayer)
    for length in steps:
        add(length)
        kept = torch.tensor(sorted(random.sample(range(rows), random.randint(1, rows))))
        for cache in (plain, roomy):
            generation_rows.keep_rows({"past_key_values": cache}, kept, rows)
        rows = len(kept)
        assert roomy.get_seq_length() == plain.get_seq_length()
    add(1)


def test_a_cache_grows_no_further_than_it_is_needed():
    cache = DynamicCache()
    cache.update(torch.zeros(2, 1, 5, 3), torch.zeros(2, 1, 5, 3), 0)
    generation_rows.give_room(cache, 9)
    for _ in range(4):
        keys, _ = cache.update(torch.zeros(2, 1, 1, 3), torch.zeros(2, 1, 1, 3), 0)
        assert keys.untyped_storage().nbytes() == 2 * 1 * 9 * 3 * 4

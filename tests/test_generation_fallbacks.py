"""What our loop cannot generate, transformers' own does, and one line says why."""

from __future__ import annotations

import logging

import pytest
import tiny
import torch
import transformers
from generating import SENTENCES, answers, mixed, own, request, stock, why_not
from lm_eval.models.huggingface import HFLM
from test_finite import broken

from lm_eval_amplify.models.finite import is_finite


@pytest.fixture(autouse=True)
def informed(caplog):
    caplog.set_level(logging.INFO, logger="lm_eval.amplified_hf")


@pytest.fixture(scope="module")
def llama():
    return tiny.model("llama")


def test_nothing_is_said_where_our_loop_runs(llama, caplog):
    answers(own(llama), mixed())
    assert why_not(caplog.records) == []


DRAWN = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 8}


def test_what_is_drawn_is_drawn_as_by_hf(llama, caplog):
    requests = [request(one, **DRAWN) for one in SENTENCES]
    torch.manual_seed(3)
    expected = answers(stock(llama, batch_size=4), requests)
    torch.manual_seed(3)
    lm = own(llama, batch_size=4)
    assert answers(lm, requests) == expected
    assert why_not(caplog.records) == ["it draws, by random numbers of whole batches"]
    assert answers(lm, mixed()) == answers(stock(llama), mixed())


def test_draws_stay_paired(llama):
    lms = [own(llama, neurons=tiny.neurons("llama"), factor=2) for _ in range(2)]
    lms[1]._generator = None
    for lm in lms:
        torch.manual_seed(3)
        lm.sides = [
            getattr(lm, f"generate_until_{side}")([request("Hujan", **DRAWN)] * 3, disable_tqdm=True)
            for side in ("amplified", "unamplified")
        ]
    assert lms[0].sides == lms[1].sides


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_beams": 2}, "it is not greedy: beam_search"),
        ({"prompt_lookup_num_tokens": 3}, "it is not greedy: assisted_generation"),
        ({"cache_implementation": "static"}, "its cache is a StaticCache, which keeps its rows"),
        ({"encoder_repetition_penalty": 1.2}, "EncoderRepetitionPenaltyLogitsProcessor may know rows by their number"),
        ({"max_time": 1000.0}, "it ends by MaxTimeCriteria, which is asked about whole batches"),
    ],
    ids=str,
)
def test_what_is_asked_for_and_goes_by_whole_batches_is_left_to_hf(llama, caplog, options, reason):
    requests = [request(one, max_gen_toks=8, until=["e"], **options) for one in SENTENCES[:3]]
    lm = own(llama, batch_size=1)
    assert answers(lm, requests * 2) == answers(stock(llama), requests * 2)
    assert why_not(caplog.records) == [reason]


def small(config_class, **sizes):
    config = config_class(
        vocab_size=400, num_hidden_layers=2, bos_token_id=0, eos_token_id=0, pad_token_id=1, **sizes
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, 0, 0.2)
    return model


def recurrent():
    """Its state lies in its modules, where rows cannot be taken out of it."""
    return small(
        transformers.RecurrentGemmaConfig, hidden_size=32, intermediate_size=48, num_attention_heads=4, lru_width=32,
        attention_window_size=64, block_types=["recurrent", "attention"],
    )  # fmt: skip


def without_cache():
    return small(transformers.RwkvConfig, hidden_size=32, attention_hidden_size=32, context_length=128)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (recurrent, "where a row has been taken out, the others' logits differ"),
        (without_cache, "it keeps state as list"),
    ],
)
def test_models_that_rows_cannot_be_taken_out_of_are_found_by_trying(build, reason, caplog):
    model = build()
    lm = own(model, max_length=128)
    assert answers(lm, mixed(6)) == answers(stock(model, batch_size=5, max_length=128), mixed(6))
    (said,) = why_not(caplog.records)
    assert said.startswith(reason)


def test_an_encoder_decoder_is_left_to_hf(caplog, tmp_path):
    config = transformers.T5Config(
        vocab_size=400, d_model=16, d_ff=24, d_kv=8, num_layers=2, num_heads=2, decoder_start_token_id=1,
        eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    lm = own(model, backend="seq2seq", max_length=64)
    expected = answers(
        HFLM(model, tokenizer=tiny.tokenizer(), backend="seq2seq", batch_size=5, max_length=64), mixed(6)
    )
    assert answers(lm, mixed(6)) == expected
    assert why_not(caplog.records) == ["the model is an encoder-decoder"]


def test_a_model_whose_rows_disturb_each_other_is_found(llama, caplog):
    """The check itself: a model that adds something of the first row to all rows."""
    model = tiny.model("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _a, output: output + output[:1])
    answers(own(model), mixed(3))
    assert why_not(caplog.records) == ["where a row has been taken out, the others' logits differ"]


def test_where_logits_are_not_finite_the_right_rows_are_counted(caplog):
    """Also after others have left the batch."""
    made = [request(one, until=["e"], max_gen_toks=12) for one in SENTENCES]
    for number, one in enumerate(made):
        one.doc["amplify_language"] = "est_Latn" if number % 2 else "ind_Latn"
    lm = broken(batch_size=5)
    lm.use_own_generation()
    assert [is_finite(answer) for answer in answers(lm, made)] == [number % 2 == 0 for number in range(len(made))]


def test_only_the_row_whose_logits_are_not_finite_is_counted(llama):
    """The second row of a batch, when the first has left it."""
    longest, second = sorted(SENTENCES, key=lambda one: -len(tiny.tokenizer().encode(one)))[:2]
    written, of_second = answers(stock(llama), [request(one, until=[], max_gen_toks=20) for one in (longest, second)])
    until = next(character for character in written if character not in of_second)
    spoilt = len(tiny.tokenizer().encode(second)) + 18  # the position that, of those left, only its row comes to

    def spoil(_module, _arguments, named, output):
        output.logits[named["position_ids"][:, -1] == spoilt] = torch.nan

    model = tiny.model("llama")
    model.register_forward_hook(spoil, with_kwargs=True)
    requests = [request(one, until=[until], max_gen_toks=20) for one in SENTENCES]
    found = [is_finite(answer) for answer in answers(own(model, batch_size=7), requests)]
    assert found == [one != second for one in SENTENCES]

"""Scoring and generation of the harness at positions: what each request alone, changed by hand, gives."""

from __future__ import annotations

import itertools

import pytest
import tiny
import torch
from harness_runs import requests
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from positions_by_hand import ByHand
from test_amplified_hf import TYPES
from test_positions import neurons_of, t5

from lm_eval_amplify.errors import InterventionError, ModelError
from lm_eval_amplify.intervention import POSITIONS
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.models.scored_rows import ScoredRows, unambiguous_parts

STATISTICS = ("max", "batch_p10", "running_max")

# Rows that are equal, or equal but for padding or a last token 0, with other boundaries; cut ones; one-token options.
TRICKY = [
    ([5, 9, 300], [17]),
    ([5, 9], [300, 17]),
    ([5], [9, 300, 42]),
    ([5, 9, 300], [42]),
    ([5, 9, 300], [17]),
    ([7, 12], [250, 0]),
    ([7, 12], [250, 0, 0]),
    ([7, 12, 250], [0, 33]),
    ([7, 12, 250, 0], [33]),
    ([7, 12, 250, 0, 0], [33, 8]),
    ([0], [0, 0]),
    ([0, 0], [0]),
    (list(range(2, 40)), [7, 9]),
    (list(range(2, 30)), [*range(30, 40), 7, 9]),
]


def load(family="qwen2", **arguments):
    return AmplifiedHFLM(
        tiny.model(family), tokenizer=tiny.tokenizer(), neurons=tiny.neurons(family), language="ind_Latn", **arguments
    )


def by_hand(lm) -> ByHand:
    return ByHand(lm.model, lm.neurons, lm.intervention)


def scored(lm, pairs):
    """As the harness calls it from a request type, amplified."""
    given = [(("", ""), context, continuation) for context, continuation in pairs]
    with lm.amplifier.amplified("ind_Latn"):
        return lm._loglikelihood_tokens(given, disable_tqdm=True)


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize(
    ("statistic", "positions", "scorer"),
    # Everywhere with a statistic of the file, the harness scores by itself, and takes some of these for each other.
    [(*pair, "stock") for pair in itertools.product(STATISTICS, POSITIONS) if pair != ("max", "all")]
    # With test-time statistics it scores anyway.
    + [("max", positions, "packed") for positions in POSITIONS],
)
def test_each_request_is_scored_as_it_would_be_alone(statistic, positions, scorer, batch_size):
    given = {"statistic": statistic, "factor": 2, "positions": positions, "scorer": scorer, "max_length": 24}
    lm = load(**given, batch_size=batch_size)
    assert lm.scorer == scorer
    answers = scored(lm, TRICKY)
    for (context, continuation), (value, _) in zip(TRICKY, answers, strict=True):
        kept = (context + continuation)[-25:]
        expected = by_hand(lm).loglikelihood(kept[: len(kept) - len(continuation)], continuation)
        assert value == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    ("operation", "scorer"), [("set", "stock"), ("add", "stock"), ("scale", "stock"), ("add", "packed")]
)
def test_every_family_and_operation_is_scored_and_generated_at_its_positions(family, operation, scorer):
    texts = ["Hujan turun dengan deras", "Mees", "那个男人打开了水龙头"]
    pairs = [(tiny.tokenizer()(text)["input_ids"], [300, 17, 42]) for text in texts]
    made = [Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 4}), 0, ("t", 0, 1)) for text in texts]
    for positions in ("prompt", "generated"):
        lm = load(family, operation=operation, factor=3, positions=positions, batch_size=3, scorer=scorer)
        for pair, (value, _) in zip(pairs, scored(lm, pairs), strict=True):
            assert value == pytest.approx(by_hand(lm).loglikelihood(*pair), abs=2e-4)
        expected = [by_hand(lm).greedy(context, 4, end=0) for context, _ in pairs]
        written = lm.generate_until(made, disable_tqdm=True)
        assert written == [lm.tok_decode(tokens) for tokens in expected]


def test_the_scored_continuation_does_not_change_what_the_prompt_is_given():
    """The statistic is the prompt's: the first continuation token scores the same whatever follows it."""
    lm = load(statistic="batch_max", batch_size=1)
    (short, _), (long, _) = (scored(lm, [([5, 9, 300], [17, *more])])[0] for more in ([], [42]))
    rest = by_hand(lm).logits([5, 9, 300, 17], 3)[-1].log_softmax(-1)[42].item()
    assert long - rest == pytest.approx(short, abs=2e-4)


@pytest.mark.parametrize("arguments", [{"positions": "generated"}, {"preset": "paper_10p"}], ids=str)
def test_the_unamplified_twin_is_stock_bit_for_bit(arguments):
    lm = load("llama", batch_size=3, scorer="stock", **arguments)
    plain = HFLM(lm.model, tokenizer=lm.tokenizer, batch_size=3)
    tricky = [(("", ""), context, continuation) for context, continuation in TRICKY]
    assert lm._loglikelihood_tokens(tricky) == plain._loglikelihood_tokens(tricky)  # also where the harness is wrong
    for kind in ("loglikelihood", "generate_until"):
        unamplified = getattr(lm, f"{kind}_unamplified")(requests(kind), disable_tqdm=True)
        assert unamplified == getattr(plain, kind)(requests(kind), disable_tqdm=True)
        amplified = getattr(lm, f"{kind}_amplified")(requests(f"{kind}_amplified"), disable_tqdm=True)
        assert amplified == getattr(lm, kind)(requests(kind), disable_tqdm=True)
        assert amplified != unamplified


def test_a_statistic_of_the_running_input_is_scored_by_the_harness(caplog):
    lm = load(statistic="batch_max")
    assert lm.get_model_info()["amplify"]["scorer"] == "stock"
    assert "scorer=packed: HFLM scores (statistic=batch_max is of each request's own prompt)" in caplog.text


@pytest.mark.parametrize("scorer", ["stock", "packed"])
def test_all_positions_of_a_rolling_window_predict_a_scored_token(scorer):
    everywhere, generated, prompt = (
        load("gemma2", positions=positions, scorer=scorer) for positions in ("all", "generated", "prompt")
    )
    plain = HFLM(prompt.model, tokenizer=prompt.tokenizer)
    one, other, none, stock = (
        lm.loglikelihood_rolling(requests("loglikelihood_rolling"), disable_tqdm=True)
        for lm in (everywhere, generated, prompt, plain)
    )
    assert one == pytest.approx(other, abs=2e-4)
    assert none == pytest.approx(stock, abs=2e-4)
    assert one != pytest.approx(stock, abs=1)


def test_the_batch_size_is_found_and_nothing_is_left_behind(monkeypatch):
    lm = load(batch_size="auto", max_batch_size=2, statistic="batch_p90", positions="prompt")
    fixed = load(batch_size=1, statistic="batch_p90", positions="prompt")
    for kind in TYPES:
        found, expected = (getattr(one, kind)(requests(kind), disable_tqdm=True) for one in (lm, fixed))
        if kind == "loglikelihood":
            found, expected = ([value for value, _ in answers] for answers in (found, expected))
        assert found == (expected if kind == "generate_until" else pytest.approx(expected, abs=2e-4))
    assert lm._rows is None
    monkeypatch.setattr(lm.model.model.layers[1], "forward", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scored(lm, TRICKY)
    assert lm._rows is None
    assert not lm.amplifier.is_acting


# Which request a row is -------------------------------------------------------------------------------------------


def test_rows_that_could_be_taken_for_each_other_come_apart():
    made = [(None, context, continuation) for context, continuation in TRICKY]
    parts = unambiguous_parts(made, 24)
    assert sorted(number for part in parts for number in part) == list(range(len(TRICKY)))
    assert len(parts) == 3  # the prompt of 5, 9, 300 ends at three places
    assert parts[0][:1] + parts[1][:1] + parts[2][:1] == [0, 1, 2]
    assert len(unambiguous_parts(made[:1] + made[3:5], 24)) == 1


def test_a_row_is_known_by_its_tokens():
    rows = ScoredRows([(None, [5, 9, 300], [17, 42]), (None, [7], [8])], 24)
    batch = torch.tensor([[5, 9, 300, 17], [7, 0, 0, 0]])
    prompt_mask, prompt = rows.masks(batch, "prompt")
    generated_mask, _ = rows.masks(batch, "generated")
    assert prompt.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert prompt_mask.int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert generated_mask.int().tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]  # padding does not matter
    assert rows.masks(batch, "all")[0] is None
    with pytest.raises(ModelError, match="positions=prompt: the harness scores a row that is no request's"):
        rows.masks(torch.tensor([[5, 9]]), "prompt")


# Refused ------------------------------------------------------------------------------------------------------------


def test_positions_of_an_encoder_decoder_are_scored_and_not_generated():
    model = t5()
    lm = AmplifiedHFLM(
        model, tokenizer=tiny.tokenizer(), neurons=neurons_of(model), statistic="one", positions="generated",
        language="ind_Latn", backend="seq2seq",
    )  # fmt: skip
    layers = AmplifiedHFLM(
        model, tokenizer=tiny.tokenizer(), neurons=neurons_of(model), statistic="one", layers="2-3",
        language="ind_Latn", backend="seq2seq",
    )  # fmt: skip
    made = requests("loglikelihood")
    assert lm.loglikelihood(made, disable_tqdm=True) == layers.loglikelihood(made, disable_tqdm=True)
    with pytest.raises(InterventionError, match="positions=generated in generate_until of an encoder-decoder"):
        lm.generate_until(requests("generate_until"), disable_tqdm=True)


@pytest.mark.parametrize(
    ("arguments", "options", "line"),
    [
        ({"preset": "paper_max"}, {"num_beams": 2}, "statistic=running_max with num_beams=2: .*; use one beam"),
        ({"positions": "prompt"}, {"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens .* is not supported"),
    ],
)
def test_a_way_to_generate_that_would_be_amplified_wrongly_is_refused(arguments, options, line):
    lm = load(**arguments)
    one = Instance("generate_until", {}, ("Hujan", {"until": [], "max_gen_toks": 4, **options}), 0, ("t", 0, 1))
    with pytest.raises(InterventionError, match=line):
        lm.generate_until([one], disable_tqdm=True)

"""Packed scoring gives stock scoring's answers, whatever else is in the run."""

from __future__ import annotations

import functools
import random
from contextlib import contextmanager

import pytest
import tiny
import torch
from harness_runs import quick_batch_detection, requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.errors import ModelError
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.scoring.batches import Budget
from lm_eval_amplify.scoring.engine import Abilities, Engine
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.requests import Scored

LONGEST = 96  # longer than the attention window of tiny Gemma 2


@functools.cache
def models(family, **arguments):
    """The packed and the stock scorer of one model.

    The latter without its ``logits_cache``, which gives a shorter continuation of the same tokens another one's
    numbers: see below.
    """
    given_ = {"tokenizer": tiny.tokenizer(), "batch_size": 3, "max_length": LONGEST} | arguments
    model = tiny.model(family)
    return AmplifiedHFLM(model, **given_), HFLM(model, logits_cache=False, **given_)


def scores(lm, pairs):
    return lm._loglikelihood_tokens([(("", ""), *pair) for pair in pairs], disable_tqdm=True)


def assert_agree(ours, theirs):
    """As exact as promised in float32."""
    for (mine, my_greedy), (their, their_greedy) in zip(ours, theirs, strict=True):
        assert abs(mine - their) <= 1e-4 + 1e-6 * abs(their)
        assert my_greedy == their_greedy


@st.composite
def pairs(draw):
    """Contexts that begin alike, or are the same, or have one token; continuations likewise; some too long."""
    shared = draw(st.lists(st.integers(0, 399), min_size=1, max_size=80))
    tokens = st.one_of(
        st.lists(st.integers(0, 399), min_size=1, max_size=5),
        st.integers(1, len(shared)).map(lambda length: shared[:length]),
        st.tuples(st.integers(1, len(shared)), st.lists(st.integers(0, 399), max_size=30)).map(
            lambda both: shared[: both[0]] + both[1]
        ),
        st.just(shared * 3),
    )
    made = draw(st.lists(st.tuples(tokens, tokens), min_size=1, max_size=10))
    made = [(context, continuation[:LONGEST]) for context, continuation in made]
    return made + draw(st.lists(st.sampled_from(made), max_size=3))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(pairs())
def test_any_requests_are_scored_as_by_the_harness(family, made):
    packed, stock = models(family)
    assert packed.scorer == "packed"
    assert_agree(scores(packed, made), scores(stock, made))


def test_tokens_that_are_cut_in_several_places_have_their_own_answers():
    """``A B | C`` and ``A | B C`` are one input; with its ``logits_cache`` HFLM scores C where B is predicted."""
    packed, stock = models("llama")
    made = [([5, 6, 7], [8, 9]), ([5, 6], [7, 8, 9]), ([5, 6, 7, 8], [9]), ([5, 6, 7], [8, 10])]
    alone = [scores(stock, [pair])[0] for pair in made]
    assert_agree(scores(packed, made), alone)
    cached = scores(HFLM(stock.model, tokenizer=stock.tokenizer), made)
    assert cached[1] == pytest.approx(alone[1])
    assert cached[0] != pytest.approx(alone[0], abs=1e-2)


def mixed(count=60, seed=0):
    """Requests behind long common beginnings, with options; too many for one row."""
    rng = random.Random(seed)
    base = [rng.randrange(400) for _ in range(70)]
    return [
        ([*base[: rng.choice((1, 20, 60, 70))], n % 400], [rng.randrange(400) for _ in range(rng.randrange(1, 6))])
        for n in range(count)
        for _ in range(2)
    ]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_answer_depends_on_what_else_is_in_the_run(family):
    packed, stock = models(family)
    made = mixed()
    expected = scores(stock, made)
    order = list(range(len(made)))
    random.Random(1).shuffle(order)
    shuffled = scores(packed, [made[n] for n in order])
    assert_agree([shuffled[order.index(n)] for n in range(len(made))], expected)
    split = [answer for start in range(0, len(made), 7) for answer in scores(packed, made[start : start + 7])]
    assert_agree(split, expected)


@pytest.mark.parametrize("batch_size", [1, 64, "auto"])
def test_the_size_of_batches_changes_no_answer(batch_size):
    packed = AmplifiedHFLM(tiny.model("llama"), tokenizer=tiny.tokenizer(), batch_size=batch_size, max_batch_size=4)
    assert_agree(scores(packed, mixed()), scores(models("llama")[1], mixed()))


def test_what_the_model_would_say_itself_is_greedy():
    packed, stock = models("llama")
    context = [5, 17, 23, 99]
    with torch.no_grad():
        ids = torch.tensor([context])
        for _ in range(6):
            ids = torch.cat([ids, packed.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    said = ids[0, len(context) :].tolist()
    made = [(context, said), (context, said[:1]), (context, [*said[:5], (said[5] + 1) % 400]), (context, [3])]
    assert [greedy for _, greedy in scores(packed, made)] == [True, True, False, said[0] == 3]
    assert_agree(scores(packed, made), scores(stock, made))


def test_shared_beginnings_are_computed_once():
    packed, stock = models("qwen2")
    seen = []
    handle = packed.model.register_forward_pre_hook(
        lambda _m, _a, options: seen.append(options["input_ids"].numel() if "input_ids" in options else 0),
        with_kwargs=True,
    )
    head = []
    packed.model.lm_head.register_forward_hook(lambda _m, _a, out: head.append(out.numel() // out.shape[-1]))
    made = [([*range(60)], [100 + n, 7, 8]) for n in range(15)]
    layer = packed.model.model.layers[0]
    tokens = []
    other = layer.register_forward_hook(lambda _m, arguments, _o: tokens.append(arguments[0].shape[:2].numel()))
    scores(packed, made)
    ours = sum(tokens)
    assert ours == 60 + 15 * 2
    assert sum(head) == 1 + 15 * 2
    tokens.clear()
    scores(stock, made)
    assert sum(tokens) == 15 * 62
    handle.remove()
    other.remove()


def test_prefixes_are_kept_across_rows():
    """More questions than a row holds, behind one long beginning."""
    packed, stock = models("gpt2")
    made = [([*range(60), 100 + n, *range(20)], [7]) for n in range(30)]
    tokens = []
    handle = packed.model.transformer.h[0].register_forward_hook(
        lambda _m, arguments, _o: tokens.append(arguments[0].shape[:2].numel())
    )
    ours = scores(packed, made)
    assert sum(tokens) == 60 + 30 * 21
    assert len(tokens) > 3
    handle.remove()
    assert_agree(ours, scores(stock, made))


# Rolling -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_whole_texts_are_scored_as_by_the_harness(family):
    packed, stock = models(family)
    texts = ["Hujan turun semalaman. " * n for n in (1, 30, 3, 9)] + ["", "a"]
    made = [Instance("loglikelihood_rolling", {}, (text,), 0, ("t", n, 1)) for n, text in enumerate(texts)]
    ours = packed.loglikelihood_rolling(made, disable_tqdm=True)
    assert ours == pytest.approx(stock.loglikelihood_rolling(made, disable_tqdm=True), rel=1e-6, abs=1e-4)


# What can go wrong --------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_halves_the_batches_and_the_run_goes_on():
    packed, _ = models("llama")
    engine = Engine(packed._engine.forward, packed._engine.abilities)
    scored = [Scored.cut(*pair, LONGEST) for pair in mixed()]
    expected = scores(models("llama")[1], mixed())
    sizes = []

    def full(_model, arguments):
        sizes.append(arguments[0].numel())
        if sizes[-1] > 110:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    handle = packed.model.register_forward_pre_hook(full)
    with quick_batch_detection():
        answers = dict(engine.score(scored, Budget(1024, 1024)))
    assert max(sizes) > 110
    failed = sum(size > 110 for size in sizes)
    assert_agree([answers[n] for n in range(len(scored))], expected)
    sizes.clear()
    dict(engine.score(scored, Budget(1024, 1024)))
    assert max(sizes) <= 110, "found once per run"
    handle.remove()
    assert 0 < failed <= 4
    refusing = packed.model.register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))
    )
    with pytest.raises(torch.OutOfMemoryError), quick_batch_detection():
        list(engine.score(scored[:1], Budget(1024, 1024)))
    refusing.remove()


def test_another_error_is_not_taken_for_memory():
    packed, _ = models("llama")
    broken = packed.model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        scores(packed, mixed(1))
    broken.remove()


def test_an_answer_that_is_not_finite_spoils_no_other_of_its_row():
    model = tiny.model("llama")
    model.model.embed_tokens.weight.data[399] = torch.nan
    stock = HFLM(model, tokenizer=tiny.tokenizer(), batch_size=3)
    made = [([5, 6, 7], [8, 9]), ([5, 6, 7], [399, 9]), ([399, 1], [2]), ([5, 6, 10], [8]), ([5], [399])]
    # Found to be able by its healthy twin: the probe's tokens are not these.
    packed = AmplifiedHFLM(model, tokenizer=tiny.tokenizer(), batch_size=3)
    assert packed.scorer == "packed"
    ours, theirs = scores(packed, made), scores(stock, made)
    finite = [torch.isfinite(torch.tensor(value)).item() for value, _ in theirs]
    assert finite == [True, False, False, True, True]
    assert [torch.isfinite(torch.tensor(value)).item() for value, _ in ours] == finite
    assert_agree(
        [a for a, f in zip(ours, finite, strict=True) if f], [a for a, f in zip(theirs, finite, strict=True) if f]
    )


def test_requests_that_cannot_be_scored_are_one_line():
    packed, _ = models("llama")
    with pytest.raises(ModelError, match=r"a continuation of 97 tokens is longer than max_length=96: "):
        scores(packed, [([1], [2] * 97)])
    with pytest.raises(ModelError, match="a request's context has no token"):
        scores(packed, [([], [2])])


def test_answers_reach_the_cache_and_are_tuples():
    packed, _ = models("llama")
    kept = {}

    class Keeper:
        def add_partial(self, kind, request, answer):
            kept[kind, request] = answer

    before, packed.cache_hook = packed.cache_hook, Keeper()
    answers = packed.loglikelihood(requests("loglikelihood"), disable_tqdm=True)
    rolling = packed.loglikelihood_rolling(requests("loglikelihood_rolling"), disable_tqdm=True)
    packed.cache_hook = before
    assert [kept["loglikelihood", one.args] for one in requests("loglikelihood")] == answers
    assert [kept["loglikelihood_rolling", one.args] for one in requests("loglikelihood_rolling")] == rolling
    assert all(type(answer) is tuple and type(answer[0]) is float and type(answer[1]) is bool for answer in answers)


# Roles --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acts_on_continuations", [True, False])
@pytest.mark.parametrize("trees", [True, False])
def test_an_intervention_on_continuations_or_prompts_gets_their_positions_in_packed_rows(trees, acts_on_continuations):
    """Compared with a plain pass over each request alone, changed by hand at its own positions."""
    model = tiny.model("llama")
    where = []
    shift = torch.linspace(-1, 1, tiny.WIDTH)

    def change(_layer, _arguments, output):
        mask = where[-1] if acts_on_continuations else ~where[-1]
        return output + mask.unsqueeze(-1) * shift

    for layer in model.model.layers:
        layer.register_forward_hook(change)

    @contextmanager
    def on(roles):
        where.append(roles)
        yield
        where.pop()

    made = [*mixed(10), ([1, 2, 3, 4], [5, 6]), ([1, 2], [3, 4, 5, 6]), ([1, 2, 3, 4, 5], [6])]
    scored = [Scored.cut(*pair, LONGEST) for pair in made]
    engine = Engine(Forward(model, torch.device("cpu"), None, on), Abilities(trees, trees))
    answers = dict(engine.score(scored, Budget(100, 100), by_role=True))
    for number, one in enumerate(scored):
        with on(torch.arange(len(one.tokens))[None] >= one.first), torch.no_grad():
            logprobs = model(torch.from_numpy(one.tokens)[None]).logits[0, one.first :].log_softmax(-1)
        expected = float(logprobs.gather(1, torch.from_numpy(one.targets)[:, None]).sum())
        assert answers[number].loglikelihood == pytest.approx(expected, rel=1e-6, abs=1e-4)


# Tokens -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"add_bos_token": True}, {"add_bos_token": False}])
def test_requests_have_the_tokens_that_the_harness_gives_them(arguments, monkeypatch):
    """Encoded together, each text once; a text may begin with the token that else is added."""
    packed, stock = models("llama", **arguments)
    first = stock.tokenizer.decode(stock.prefix_token_id)
    pairs = [("Ibu pergi", " ke pasar"), ("Ibu pergi ", "ke rumah"), ("Ibu pergi", ""), ("", "Hujan"), ("  ", "a b"),
             (f"{first}Ibu", " dan"), ("Hujan \n", " turun"), ("Ibu pergi", " ke pasar")]  # fmt: skip
    pairs = [(context, continuation or " x") for context, continuation in pairs]
    made = [Instance("loglikelihood", {}, pair, 0, ("t", n, 1)) for n, pair in enumerate(pairs)]
    seen = []
    alone = []
    encode = packed.tokenizer.encode
    monkeypatch.setattr(
        packed.tokenizer, "encode", lambda text, **options: alone.append(text) or encode(text, **options)
    )
    for lm in (packed, stock):
        monkeypatch.setattr(lm, "_loglikelihood_tokens", lambda tokens, **_: seen.append(tokens) or [(0, True)] * 8)
        lm.loglikelihood(made, disable_tqdm=True)
        if lm is packed:
            assert alone == ["Hujan"], "a continuation without a context, which HFLM encodes in another way"
    assert seen[0] == seen[1]
    assert packed.tok_encode("Ibu pergi") == stock.tok_encode("Ibu pergi")

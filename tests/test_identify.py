"""Counting and statistics, against activations that hooks of the test's own store one document at a time."""

from __future__ import annotations

import random
from collections.abc import Callable

import lape_oracle
import numpy as np
import pytest
import tiny
import torch
from texts import LANGUAGES, InMemory, sentences
from tokenizers.processors import TemplateProcessing

from lm_eval_amplify.errors import (
    AmplifyError,
    DataError,
    IdentificationError,
    LanguageError,
    ModelError,
    NeuronFileError,
)
from lm_eval_amplify.identify import Activations, Counts, Lape, Texts, add_statistics, identify
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.neurons import NeuronFile
from lm_eval_amplify.neurons.serialize import to_bytes

DOCUMENTS = {language: sentences(language) for language in LANGUAGES}
BUDGET = 120


def counts_of(model: torch.nn.Module, tokenizer: object, texts: Texts) -> Counts:
    network = Network(model)
    return texts.fitted_to(network).activations_of(network, tokenizer, LANGUAGES, None).counts()


def stored_activations(
    model: torch.nn.Module,
    tokenizer: object,
    language: str,
    *,
    prefix: tuple[int, ...] = (),
    window: int = 256,
    documents: InMemory | None = None,
) -> list[np.ndarray]:
    """Each document's activations, ``[layers, tokens, d_ff]``, cut at the budget, window by window."""
    budget = BUDGET
    seen: list[np.ndarray] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach().numpy().copy()))
        for name, module in model.named_modules()
        if name.endswith(("mlp.act_fn", "mlp.act"))
    ]
    found = []
    try:
        for document in (documents or InMemory(DOCUMENTS)).documents(language):
            ids = tokenizer.encode(document, add_special_tokens=False)[:budget]
            if not ids:
                break
            budget -= len(ids)
            windows = []
            for start in range(0, len(ids), window):
                seen.clear()
                with torch.no_grad():
                    model(torch.tensor([[*prefix, *ids[start : start + window]]]))
                windows.append(np.stack([layer[0, len(prefix) :] for layer in seen]))
            found.append(np.concatenate(windows, axis=1))
    finally:
        for handle in handles:
            handle.remove()
    return found


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    return tiny.model(request.param)


@pytest.fixture(scope="module")
def llama() -> torch.nn.Module:
    return tiny.model("llama")


def with_begin_token(tokenizer: object) -> object:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    return tokenizer


class TestCounts:
    def test_they_are_those_of_stored_activations(self, model: torch.nn.Module) -> None:
        found = counts_of(model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET, batch_size=2, max_length=48))
        assert found.languages == LANGUAGES
        for position, language in enumerate(LANGUAGES):
            expected = sum((a > 0).sum(1) for a in stored_activations(model, tiny.tokenizer(), language, window=48))
            np.testing.assert_array_equal(found.over_zero[:, :, position], expected)
            assert found.tokens[position] == BUDGET

    def test_the_model_sees_a_begin_token_that_does_not_count(self, llama: torch.nn.Module) -> None:
        tokenizer = with_begin_token(tiny.tokenizer())
        found = counts_of(llama, tokenizer, Texts(InMemory(DOCUMENTS), BUDGET))
        stored = stored_activations(llama, tokenizer, LANGUAGES[0], prefix=(0,))
        np.testing.assert_array_equal(found.over_zero[:, :, 0], sum((a > 0).sum(1) for a in stored))
        assert found.tokens[0] == BUDGET
        without = counts_of(llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET))
        assert (without.over_zero != found.over_zero).any()

    def test_they_do_not_depend_on_batch_size_padding_side_or_order(self, model: torch.nn.Module) -> None:
        total = 10**6  # all there is: a budget takes the first
        reference = None
        for batch_size, side, seed in (
            (1, "left", None),
            (3, "right", None),
            (50, "left", 1),
            (2, "right", 2),
        ):
            documents = {language: list(own) for language, own in DOCUMENTS.items()}
            if seed is not None:
                for own in documents.values():
                    random.Random(seed).shuffle(own)
            texts = Texts(InMemory(documents), total, allow_short=True, max_length=64, batch_size=batch_size)
            found = counts_of(model, tiny.tokenizer(side), texts)
            reference = reference or found
            np.testing.assert_array_equal(found.over_zero, reference.over_zero)
            np.testing.assert_array_equal(found.tokens, reference.tokens)

    def test_they_add_up_over_shards(self, model: torch.nn.Module) -> None:
        def of(documents: dict[str, list[str]]) -> Counts:
            return counts_of(model, tiny.tokenizer(), Texts(InMemory(documents), 10**6, allow_short=True))

        shards = [of({language: own[start::3] for language, own in DOCUMENTS.items()}) for start in range(3)]
        together, whole = shards[0] + shards[1] + shards[2], of(DOCUMENTS)
        np.testing.assert_array_equal(together.over_zero, whole.over_zero)
        np.testing.assert_array_equal(together.tokens, whole.tokens)

    def test_half_precision_counts_exactly_what_its_activations_are(self) -> None:
        model = tiny.model("qwen2").to(torch.bfloat16)
        seen: list[torch.Tensor] = []
        for block in Network(model).blocks:
            block.site.activation.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
        # Sentences of one length, so that the hook of this test sees no padding.
        corpus = InMemory({language: own[:1] * 60 for language, own in DOCUMENTS.items()})
        found = counts_of(model, tiny.tokenizer(), Texts(corpus, 10**6, allow_short=True))
        # The first run is the network's trial, which does not count.
        assert found.over_zero.sum() == sum(int((layer.float() > 0).sum()) for layer in seen[tiny.LAYERS :])
        assert found.over_zero.max() > 512  # beyond what sums in bfloat16 hold exactly

    def test_a_model_in_training_mode_is_run_without_dropout_and_left_as_it_was(self) -> None:
        model = tiny.model("gpt2")
        texts = Texts(InMemory(DOCUMENTS), BUDGET)
        expected = counts_of(model, tiny.tokenizer(), texts)
        model.train()
        model.transformer.h[1].eval()
        modes = [module.training for module in model.modules()]
        np.testing.assert_array_equal(counts_of(model, tiny.tokenizer(), texts).over_zero, expected.over_zero)
        assert [module.training for module in model.modules()] == modes

    def test_the_head_does_not_run_and_no_hook_is_left(self, model: torch.nn.Module) -> None:
        handle = model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
        try:
            identify(model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), method=Lape(0.1))
        finally:
            handle.remove()
        assert not any(module._forward_hooks for module in model.modules())


class TestStatistics:
    def test_they_are_numpys_on_stored_activations(self, model: torch.nn.Module) -> None:
        # Rows shorter than most documents: a sentence's mean is then taken over several rows.
        texts = Texts(InMemory(DOCUMENTS), BUDGET, batch_size=2, max_length=48)
        found = identify(model, tiny.tokenizer(), texts, LANGUAGES, method=Lape(0.2, 0.8, 0.8))
        for language in LANGUAGES:
            own = found.neurons[language]
            assert len(own)
            stored = stored_activations(model, tiny.tokenizer(), language, window=48)
            chosen = [a[own.layer, :, own.index].astype(np.float64) for a in stored]  # [neurons, tokens]
            tokens = np.concatenate(chosen, axis=1)
            means = np.stack([a.mean(1) for a in chosen])
            expected = {
                "max": tokens.max(1),
                "mean": tokens.mean(1),
                "sentence_max": means.max(0),
                "sentence_median": np.median(means, axis=0),
            }
            assert set(own.statistics) == set(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(own.statistics[name], values, rtol=1e-4, atol=2e-6, err_msg=name)

    def test_a_document_longer_than_a_row_is_one_sentence(self, llama: torch.nn.Module) -> None:
        corpus = InMemory({language: [" ".join(own)] for language, own in DOCUMENTS.items()})
        found = identify(llama, tiny.tokenizer(), Texts(corpus, BUDGET, max_length=16), method=Lape(0.2, 0.8, 0.8))
        for language, own in found.neurons.items():
            assert len(own)
            rows = stored_activations(llama, tiny.tokenizer(), language, window=16, documents=corpus)
            expected = rows[0][own.layer, :, own.index].mean(1)
            for name in ("mean", "sentence_max", "sentence_median"):
                np.testing.assert_allclose(own.statistics[name], expected, rtol=1e-4, atol=2e-6, err_msg=name)

    def test_a_file_without_statistics_gets_the_same_as_identification_writes(self, llama: torch.nn.Module) -> None:
        texts = Texts(InMemory(DOCUMENTS), BUDGET)
        whole = identify(llama, tiny.tokenizer(), texts, method=Lape(0.1))
        bare = {language: type(own)(own.layer, own.index) for language, own in whole.neurons.items()}
        again = add_statistics(NeuronFile(whole.manifest, bare), llama, tiny.tokenizer(), texts)
        assert to_bytes(again) == to_bytes(whole)

    def test_a_file_of_another_shape_is_refused(self, llama: torch.nn.Module) -> None:
        other = tiny.neurons("gpt2", languages=LANGUAGES)
        with pytest.raises(NeuronFileError, match="intermediate_size=64, the model has 48"):
            add_statistics(other, llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET))


class TestIdentify:
    def test_the_neurons_are_those_of_a_slow_implementation_on_stored_activations(self, model: torch.nn.Module) -> None:
        active = [
            sum((a > 0).sum(1) for a in stored_activations(model, tiny.tokenizer(), language)) for language in LANGUAGES
        ]
        over_zero = np.stack(active, axis=-1).tolist()
        for rates in ((0.1, 0.95, 0.95), (0.3, 0.7, 0.8), (1.0, 0.5, 0.3)):
            found = identify(
                model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), LANGUAGES, method=Lape(*rates)
            )
            expected = lape_oracle.select(over_zero, [BUDGET] * len(LANGUAGES), *rates)
            for language, own in zip(LANGUAGES, expected, strict=True):
                neurons = found.neurons[language]
                assert list(zip(neurons.layer, neurons.index, strict=True)) == own

    def test_the_manifest_says_how_the_neurons_were_found(self, llama: torch.nn.Module) -> None:
        texts = Texts(InMemory(DOCUMENTS), BUDGET, max_length=64)
        manifest = identify(
            llama, tiny.tokenizer(), texts, ["Chinese", "id"], method=Lape(0.1), model_name="org/model"
        ).manifest
        assert manifest.languages == ("zho_Hans", "ind_Latn")
        assert manifest.tokens == {"zho_Hans": BUDGET, "ind_Latn": BUDGET}
        assert (manifest.model, manifest.architecture) == ("org/model", "LlamaForCausalLM")
        assert (manifest.num_layers, manifest.intermediate_size) == (tiny.LAYERS, tiny.D_FF["llama"])
        assert (manifest.method, manifest.corpus) == ("lape", "memory")
        assert manifest.parameters == {
            "top_rate": 0.1,
            "filter_rate": 0.95,
            "activation_bar_ratio": 0.95,
            "tokens": BUDGET,
            "allow_short": False,
            "max_length": 64,
            "dtype": "float32",
        }

    def test_progress_ends_at_the_total_in_every_stage(self, llama: torch.nn.Module) -> None:
        last: dict[str, tuple[int, int]] = {}

        def report(stage: str, done: int, total: int) -> None:
            assert last.get(stage, (0, total))[0] <= done <= total
            last[stage] = (done, total)

        identify(llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), method=Lape(0.5), report=report)
        assert last == dict.fromkeys(("tokenizing", "counting", "statistics"), (4 * BUDGET, 4 * BUDGET))

    def test_a_language_without_neurons_keeps_its_place_and_is_reported(
        self, llama: torch.nn.Module, caplog: pytest.LogCaptureFixture
    ) -> None:
        # One neuron of 144 for four languages.
        found = identify(llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), method=Lape(0.007))
        none = [language for language in found.languages if not len(found.neurons[language])]
        assert len(found.languages) == 4
        assert none
        assert f"no neuron was chosen for {', '.join(none)}" in caplog.text
        assert found.statistics == ("max", "mean", "sentence_max", "sentence_median")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda: {"languages": ["ind_Latn", "Klingonish"]}, LanguageError, "unknown language 'Klingonish'"),
        (lambda: {"languages": ["ind_Latn", "id"]}, LanguageError, "language ind_Latn is given twice"),
        (lambda: {"languages": ["ind_Latn", "fra_Latn"]}, DataError, "no texts in fra_Latn"),
        (lambda: {"languages": ["ind_Latn"]}, IdentificationError, "give two or more"),
        (lambda: {"texts": Texts(InMemory(DOCUMENTS), 10**6)}, DataError, "fewer than the 1000000 asked for"),
        (
            lambda: {"texts": Texts(InMemory(DOCUMENTS), 0)},
            IdentificationError,
            "tokens=0: expected 1 or more",
        ),
        (
            lambda: {"texts": Texts(InMemory(DOCUMENTS), BUDGET, batch_size=0)},
            IdentificationError,
            "batch_size=0: expected 1 or more",
        ),
    ],
)
def test_a_mistake_is_found_before_the_model_runs(
    llama: torch.nn.Module, change: Callable[[], dict], kind: type[AmplifyError], message: str
) -> None:
    handle = llama.model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    try:
        with pytest.raises(kind, match=message):
            identify(llama, tiny.tokenizer(), **({"texts": Texts(InMemory(DOCUMENTS), BUDGET)} | change()))
    finally:
        handle.remove()


class TestNaN:
    @pytest.mark.parametrize("layer", [0, 2])
    def test_the_first_layer_with_one_is_named_and_hooks_are_gone(self, layer: int) -> None:
        model = tiny.model("llama")
        with torch.no_grad():
            model.model.layers[layer].mlp.gate_proj.weight[3, 5] = torch.nan
        with pytest.raises(ModelError, match=f"gives NaN in the activations of layer {layer}, computing in float32"):
            identify(model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET))
        assert not any(module._forward_hooks for module in model.modules())

    def test_one_behind_the_last_activations_is_told_apart(self) -> None:
        model = tiny.model("llama")
        with torch.no_grad():
            model.model.norm.weight[0] = torch.nan
        with pytest.raises(ModelError, match="gives NaN behind the last layer's activations"):
            identify(model, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET))


def test_rows_without_room_for_text_are_refused(llama: torch.nn.Module) -> None:
    tokenizer = with_begin_token(tiny.tokenizer())
    with pytest.raises(IdentificationError, match="max_length=1: expected more than 1"):
        identify(llama, tokenizer, Texts(InMemory(DOCUMENTS), BUDGET, max_length=1))


def test_rows_are_no_longer_than_the_model_has_positions(llama: torch.nn.Module) -> None:
    found = identify(llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET, max_length=10**6))
    assert found.manifest.parameters["max_length"] == 256


def test_activations_are_a_seam_for_other_methods(llama: torch.nn.Module) -> None:
    class FirstOfEachLayer:
        name = "first"
        parameters = {"why": "a test"}  # noqa: RUF012

        def check(self, languages: object) -> None: ...

        def select(self, activations: Activations) -> dict:
            layers = np.arange(activations.network.num_layers, dtype=np.int32)
            own = type(tiny.neurons("llama").neurons["ind_Latn"])(layers, np.zeros_like(layers))
            return dict.fromkeys(activations.texts, own)

    found = identify(llama, tiny.tokenizer(), Texts(InMemory(DOCUMENTS), BUDGET), method=FirstOfEachLayer())
    assert found.manifest.method == "first"
    assert found.manifest.parameters["why"] == "a test"
    assert found.neurons["ind_Latn"].index.tolist() == [0] * tiny.LAYERS

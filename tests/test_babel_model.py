"""The embedded model and its neurons: what ships, that training is repeatable, and that its LSS is the harness's."""

from __future__ import annotations

import json
import math
from itertools import islice

import numpy as np
import pytest
import torch
from harness_runs import evaluator
from safetensors import safe_open

from lm_eval_amplify import Amplifier, Intervention, read_neurons
from lm_eval_amplify.babel import train as training
from lm_eval_amplify.babel.corpus import LANGUAGES, documents, sentences
from lm_eval_amplify.identify import Texts, open_corpus, random_control
from lm_eval_amplify.identify.loading import load_model
from lm_eval_amplify.neurons import locate_neurons
from lm_eval_amplify.resources import embedded_model
from lm_eval_amplify.steering import Steering, loglikelihoods
from lm_eval_amplify.tasks_support.babel_facts import babel_facts

TARGETS = ("ind_Latn", "rus_Cyrl")


@pytest.fixture(scope="module")
def babel():
    return load_model("babel", device="cpu")


@pytest.fixture(scope="module")
def neurons():
    return read_neurons(locate_neurons("babel"))


def test_what_ships_is_small_half_precision_and_loads_as_float32(babel):
    from pathlib import Path

    folder = Path(embedded_model("babel"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118  # no mapping
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert babel.model.dtype == torch.float32
    assert type(babel.model).__name__ == "Qwen2ForCausalLM"
    assert sum(weight.numel() for weight in babel.model.parameters()) <= 2_500_000


def test_a_checkpoint_called_babel_comes_first_and_a_folder_of_results_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "babel").mkdir()
    assert embedded_model("babel").endswith("model")
    (tmp_path / "babel" / "config.json").write_text("{}")
    assert embedded_model("babel") == "babel"
    assert embedded_model("another") == "another"


def test_the_tokenizer_gives_every_text_back(babel):
    texts = [text for language in LANGUAGES for text in islice(documents(language, "held_out"), 20)]
    for text in [*texts, "ᓄᓇᕗᑦ and 123 ½ \n\t tabs"]:
        assert babel.tokenizer.decode(babel.tokenizer(text)["input_ids"]) == text


def test_the_neuron_file_is_of_this_model_and_has_all_languages(babel, neurons):
    assert sorted(neurons.languages) == sorted(LANGUAGES)
    assert neurons.manifest.model == "babel"
    Amplifier(babel.model, neurons, Intervention("set", 1.0, "max"))
    assert all(len(own) >= 5 for own in neurons.neurons.values())


def test_a_random_control_records_the_model_by_its_name(babel, neurons, caplog):
    texts = Texts(open_corpus("babel"), 200, max_length=64)
    control = random_control(neurons, 0, *babel, texts)
    assert control.manifest.statistics_of["model"] == "babel"
    assert "both are recorded" not in caplog.text


def test_a_language_knows_its_sentences_from_shuffled_ones(babel):
    rng = np.random.default_rng(0)
    for language in ("ind_Latn", "rus_Cyrl", "zho_Hans"):
        texts = list(islice(sentences(language, "held_out"), 20))
        ids = [babel.tokenizer(text)["input_ids"] for text in texts]
        shuffled = [babel.tokenizer.decode(rng.permutation(one)) for one in ids]
        real, broken = (
            loglikelihoods(*babel, [("<|endoftext|>", text) for text in some]) for some in (texts, shuffled)
        )
        assert sum(real) > 0.5 * sum(broken)


def test_deactivating_a_languages_neurons_hurts_that_language_most(babel, neurons):
    texts = {language: list(islice(sentences(language, "held_out"), 15)) for language in ("eng_Latn", *TARGETS)}

    def losses():
        return {
            language: -sum(loglikelihoods(*babel, [("<|endoftext|>", text) for text in some]))
            / sum(len(babel.tokenizer(text)["input_ids"]) for text in some)
            for language, some in texts.items()
        }

    before = losses()
    amplifier = Amplifier(babel.model, neurons, Intervention("scale", 0.0))
    for language in texts:
        with amplifier.amplified(language):
            harm = {other: value - before[other] for other, value in losses().items()}
        assert max(harm, key=harm.get) == language


def test_steering_without_the_harness_gives_the_harness_numbers(babel, neurons, tmp_path):
    steering = Steering(*babel, [dict(one) for one in babel_facts("eng_Latn", TARGETS)])
    shifts = steering.shifts(Amplifier(babel.model, neurons, Intervention("set", 1.0, "max")))
    results = evaluator(tmp_path, targets="+".join(TARGETS))(
        "amplified_hf",
        {"neurons": "babel"},
        ["amplify_lss_eng_Latn"],
        batch_size=32,
        log_samples=True,
    )
    logged = {sample["doc"]["fact"]: sample for sample in results["samples"]["amplify_lss_eng_Latn"]}
    for document, own in zip(steering.documents, shifts, strict=True):
        for target in TARGETS:
            assert own[target] == pytest.approx(logged[document["fact"]][f"shift_{target}"], abs=1e-4, nan_ok=True)
    known = [shift > 0 for one in shifts for shift in one.values() if not math.isnan(shift)]
    assert results["results"]["amplify_lss_eng_Latn"]["lss,none"] == pytest.approx(np.mean(known), abs=0.02)


def small_training(monkeypatch, seed=0):
    monkeypatch.setattr(
        training, "SHAPE", training.SHAPE | {"vocab_size": 600, "hidden_size": 32, "intermediate_size": 48}
    )
    monkeypatch.setattr(training, "WARM_UP", 2)
    tokenizer = training.train_tokenizer(20)
    model = training.new_model(tokenizer, seed)
    losses = training.train(model, training.rows(tokenizer, seed, block=20), steps=10, batch_size=4)
    return tokenizer, model, losses


def test_training_learns_and_a_second_training_gives_the_same_bits(monkeypatch, tmp_path):
    tokenizer, model, losses = small_training(monkeypatch)
    _, again, _ = small_training(monkeypatch)
    _, other, _ = small_training(monkeypatch, seed=1)
    assert losses[-1] < losses[0] - 0.1
    weights = [one.state_dict() for one in (model, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    training.save(model, tokenizer, tmp_path / "saved")
    loaded = load_model(str(tmp_path / "saved"), device="cpu")
    text = "Guru itu bekerja di sekolah."
    assert loaded.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        assert torch.allclose(loaded.model(ids).logits, model(ids).logits, atol=2e-2)

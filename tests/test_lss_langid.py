"""LSS language ID: what is generated on both sides, what is made of it, and whom it refuses."""

from __future__ import annotations

import json
import math

import lm_eval
import pytest
import tiny
import torch
import toy_benchmarks
from generated_by_hand import greedy
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lss_runs import FACTOR, evaluate, run, samples, tiny_files, two_processes
from task_tools import manager, ours

from lm_eval_amplify.errors import LanguageIDError, ModelError, NoTargetError
from lm_eval_amplify.langid import load_identifier
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.open_prompts import first_half

TASK = "amplify_lss_langid_ind_Latn"
TARGETS = "est_Latn+tam_Taml"
NOTHING = "."  # these tasks read no data


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def task():
    return ours("lss_langid", TASK, targets=TARGETS)


def texts(sample: dict) -> dict[str | None, str]:
    written = sample["doc"]["written"]
    return {None: written["unamplified"]["text"]} | {t: one["text"] for t, one in written["amplified"].items()}


def test_both_sides_are_the_texts_of_a_decoder_by_hand_and_neither_batches_nor_padding_change_them(files):
    alone = run(files, [TASK], NOTHING, limit=3, metadata={"targets": TARGETS})
    padded = run(files, [TASK], NOTHING, limit=3, metadata={"targets": TARGETS}, batch_size=3)
    seen = set()
    for sample, together in zip(samples(alone, TASK), samples(padded, TASK), strict=True):
        assert texts(sample) == texts(together)
        for target, text in texts(sample).items():
            assert text == greedy(files.by_hand, sample["doc"]["prompt"], target, 48)
            seen.add(text)
        assert sample["arguments"] == [(sample["doc"]["prompt"], sample["arguments"][0][1])] * 3
        assert sample["arguments"][0][1] == {"until": [], "max_gen_toks": 48, "do_sample": False}
    assert (
        len({len(files.by_hand.tokenizer(sample["doc"]["prompt"])["input_ids"]) for sample in samples(alone, TASK)})
        == 3
    )
    assert len(seen) == 9, "three prompts, and three sides that differ"


def test_under_a_fixed_language_that_is_the_target_and_without_any_all_of_the_neuron_file_are(files):
    fixed = run(files, [TASK], NOTHING, limit=1, language="tam_Taml")
    (sample,) = samples(fixed, TASK)
    assert sample["doc"]["targets"] == ["tam_Taml"]
    assert texts(sample)["tam_Taml"] == greedy(files.by_hand, sample["doc"]["prompt"], "tam_Taml", 48)
    task = ours("lss_langid", TASK, neurons=files.neurons)
    assert set(task.targets) == set(tiny.LANGUAGES) - {"ind_Latn"}


ESTONIAN = "Laev lahkus sadamast varahommikul ja keegi ei näinud seda."
TAMIL = "கப்பல் அதிகாலையில் துறைமுகத்தை விட்டுப் புறப்பட்டது."
INDONESIAN = "Kapal itu meninggalkan pelabuhan pagi-pagi sekali dan tidak ada yang melihatnya."
ENGLISH = "The ship left the harbour early in the morning and nobody saw it."


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # est amplified, tam amplified, unamplified
        ((ESTONIAN, TAMIL, INDONESIAN), {"lss_langid": 1, "target_rate": 1, "base_rate_unamplified": 1}),
        (
            (ESTONIAN, ESTONIAN, INDONESIAN),
            {"lss_langid": 0.5, "lss_langid_est_Latn": 1, "lss_langid_tam_Taml": 0, "other_rate": 0.5, "base_rate": 0},
        ),
        ((ESTONIAN, INDONESIAN, ESTONIAN), {"lss_langid": 0, "target_rate_unamplified": 0.5, "base_rate": 0.5}),
        ((INDONESIAN, TAMIL, TAMIL), {"lss_langid": 0, "target_rate": 0.5, "other_rate_unamplified": 0.5}),
        ((INDONESIAN, INDONESIAN, TAMIL), {"lss_langid_tam_Taml": -1, "lss_langid": -0.5}),
        ((ENGLISH, ENGLISH, ENGLISH), {"lss_langid": 0, "other_rate": 1, "no_language_rate": 0, "lid_agreement": 1}),
        (
            ("laev " * 12, TAMIL, INDONESIAN),
            {"target_rate": 0.5, "no_language_rate": 0.5, "lss_langid": 0.5, "no_language_rate_unamplified": 0},
        ),
        (
            ("Jah.", "", ""),
            {"no_language_rate": 1, "no_language_rate_unamplified": 1, "other_rate": 1, "lss_langid": 0},
        ),
    ],
)
def test_metrics_are_counted_from_the_languages_of_the_texts(written, expected, task):
    doc = dict(task.eval_docs[0])
    metrics = task.process_results(doc, written)
    assert {name: metrics[name] for name in expected} == expected
    for side in ("", "_unamplified"):
        assert sum(metrics[f"{rate}_rate{side}"] for rate in ("target", "base", "other")) == pytest.approx(1)
    assert metrics.keys() == task.process_results(dict(task.eval_docs[1]), ["", "", ""]).keys()
    assert metrics.keys() == task.aggregation().keys()


def test_babble_shows_in_repetition_and_distinct_2(task):
    doc = dict(task.eval_docs[0])
    metrics = task.process_results(doc, ["laev " * 12, TAMIL, INDONESIAN])
    babble, plain = doc["written"]["amplified"]["est_Latn"], doc["written"]["unamplified"]
    assert babble["repetition"] > 0.9 > 0.1 > plain["repetition"]
    assert babble["distinct_2"] == pytest.approx(1 / 11)
    assert plain["distinct_2"] == 1
    assert metrics["repetition"] > 0.4 > metrics["repetition_unamplified"]


def test_logged_samples_have_both_texts_with_languages_and_probabilities_side_by_side(task):
    doc = dict(task.eval_docs[0])
    task.process_results(doc, [ESTONIAN, TAMIL, INDONESIAN])
    first, second = (load_identifier(name).identify(ESTONIAN) for name in ("lid.176", "py3langid"))
    logged = doc["written"]["amplified"]["est_Latn"]
    assert logged["text"] == ESTONIAN
    assert (logged["language"], logged["probability"]) == first == ("est_Latn", first.probability)
    assert (logged["second_language"], logged["second_probability"]) == second
    assert doc["written"]["unamplified"]["counts_as"] == "ind_Latn"


def test_results_say_which_identifiers_they_are_by(files):
    results = run(
        files, [TASK], NOTHING, limit=1, metadata={"targets": TARGETS, "lid": "py3langid", "second_lid": "none"}
    )
    named = results["configs"][TASK]["language_identification"]
    assert named == {"lid": load_identifier("py3langid").name, "second_lid": None}
    assert math.isnan(results["results"][TASK]["lid_agreement,none"])
    assert results["results"][TASK]["target_rate_stderr,none"] == "N/A", "of one prompt"


def test_an_identity_writes_the_same_on_both_sides(files):
    results = run(files, [TASK], NOTHING, limit=2, metadata={"targets": TARGETS}, operation="scale", factor=1.0)
    for sample in samples(results, TASK):
        assert len(set(texts(sample).values())) == 1
    assert results["results"][TASK]["lss_langid,none"] == 0


# Sampled decoding -----------------------------------------------------------------------------------------------------


def test_sampled_decoding_draws_the_same_random_numbers_on_both_sides(files):
    """A change too small to change a draw leaves every text as it was, whatever tasks and batches they ran in."""
    other = "amplify_lss_langid_est_Latn"
    model = {"pretrained": files.pretrained, "neurons": files.neurons, "operation": "scale", "factor": 1 + 1e-7}
    lm = AmplifiedHFLM(**model, mode="hook", device="cpu", batch_size=2)
    drawn = [evaluate_sampled(lm, [TASK, other]) for _ in range(2)]
    everything = [texts(sample) for results in drawn for task in (TASK, other) for sample in samples(results, task)]
    for one in everything:
        assert len(set(one.values())) == 1
    assert len({one[None] for one in everything}) > 5, "and they are draws, of each prompt another"
    assert len(drawn[0]["samples"][TASK][0]["doc"]["targets"]) == 2
    assert drawn[0]["samples"][other][0]["doc"]["targets"] == ["tam_Taml"], "so batches of the two sides differ"


def evaluate_sampled(lm, tasks):
    options = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 6}
    index = manager(tasks_folder() / "lss_langid", targets=TARGETS)
    return lm_eval.simple_evaluate(lm, tasks=tasks, task_manager=index, limit=3, gen_kwargs=options)


def test_paired_draws_leave_the_callers_random_numbers_alone(files):
    lm = AmplifiedHFLM(pretrained=files.pretrained, neurons=files.neurons, device="cpu")
    torch.manual_seed(5)
    evaluated = torch.get_rng_state()
    doc = {"amplify_language": "est_Latn"}
    options = {"until": [], "max_gen_toks": 3, "do_sample": True, "temperature": 1.0}
    twice = [Instance("generate_until_amplified", doc, ("Hujan", options), 0, ("t", 0, 2))] * 6
    drawn = lm.generate_until_amplified(twice, disable_tqdm=True)
    assert len(set(drawn)) > 1, "one prompt's draws are several, batch by batch"
    assert torch.equal(evaluated, torch.get_rng_state())


# FLORES ---------------------------------------------------------------------------------------------------------------


def test_the_flores_variant_begins_sentences_of_devtest(tmp_path):
    mirror = toy_benchmarks.write_mirror(tmp_path)
    task = ours("lss_langid", "amplify_lss_langid_flores_ind_Latn", mirror, targets=TARGETS)
    assert task.eval_docs["prompt"][:2] == ["Kereta pertama berangkat", "Harga beras naik"]
    chinese = ours("lss_langid", "amplify_lss_langid_flores_zho_Hans", mirror, targets=TARGETS)
    assert chinese.eval_docs["prompt"][0] == "第一班火车"
    assert first_half("uno", "ita_Latn") == "uno"


# Processes ------------------------------------------------------------------------------------------------------------


def test_two_processes_give_the_texts_and_numbers_of_one(files, tmp_path):
    """Three sentences are two and one; translation runs beside, into a language of its own."""
    mirror = toy_benchmarks.write_mirror(tmp_path / "mirror")
    tasks = ["amplify_lss_langid_flores_ind_Latn", "amplify_flores_translate_any"]
    metadata = {
        "data_dir": str(mirror),
        "targets": TARGETS,
        "flores_source": "rus_Cyrl",
        "flores_target": "tam_Taml",
    }
    model = {"pretrained": files.pretrained, "neurons": files.neurons, "factor": FACTOR}
    again = {"tasks": tasks[:1], "metadata": metadata}
    two = two_processes({"model": model, "tasks": tasks, "metadata": metadata, "again": again}, tmp_path / "out")
    one = run(files, tasks, mirror, metadata=metadata)
    for task in tasks:
        assert two["results"][task] == pytest.approx(json.loads(json.dumps(one["results"][task])), nan_ok=True)
        shared = sorted(two["samples"][task], key=lambda sample: sample["doc_id"])
        alone = json.loads(json.dumps([sample["doc"] for sample in samples(one, task)]))
        assert [sample["doc"] for sample in shared] == alone


# Whom it refuses ------------------------------------------------------------------------------------------------------


def test_an_identifier_without_the_target_is_an_error_before_the_model_is_loaded():
    with pytest.raises(LanguageIDError, match="py3langid does not know ceb_Latn"):
        ours("lss_langid", TASK, targets="est_Latn+ceb_Latn", lid="py3langid")


def test_without_another_target_than_the_base_language_a_group_leaves_the_task_out():
    with pytest.raises(NoTargetError, match="no target language for base language ind_Latn: got ind_Latn"):
        ours("lss_langid", TASK, targets="ind_Latn")
    group = ours("lss_langid", "amplify_lss_langid", targets="ind_Latn")
    assert len(group) == 17
    assert TASK not in group


def test_a_plain_model_is_told_which_to_use_before_anything_is_generated(files):
    lm = HFLM(pretrained=files.pretrained, device="cpu")
    lm.generate_until = None
    with pytest.raises(ModelError, match="HFLM has no generate_until_amplified: use --model amplified_hf"):
        evaluate(lm, None, [TASK], {"targets": TARGETS})


def test_a_model_without_a_stop_token_is_an_error_before_anything_is_generated():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = None
    lm = AmplifiedHFLM(tiny.model("qwen2"), tokenizer=tokenizer, neurons=tiny.neurons("qwen2"), device="cpu")
    lm.model.generate = None
    with pytest.raises(ModelError, match=r"its tokenizer has no token to stop at \(eos_token\)"):
        evaluate(lm, None, [TASK], {"targets": TARGETS})

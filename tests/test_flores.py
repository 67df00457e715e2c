"""amplify_flores_ppl: the log-likelihood of whole sentences, against forwards made here by hand."""

from __future__ import annotations

import math
import random

import lm_eval
import numpy as np
import pytest
import torch
import toy_benchmarks
from task_tools import manager, ours
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_eval_amplify.errors import DataError, LanguageError
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.tasks_support.bootstrap import ratio_stderr
from lm_eval_amplify.tasks_support.flores import load_flores

SCRIPTS = ("ind_Latn", "rus_Cyrl", "tam_Taml", "zho_Hans")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return toy_benchmarks.write_mirror(tmp_path_factory.mktemp("mirror"))


def by_hand(pretrained, sentence: str) -> float:
    """Log-likelihood in nats of the sentence after the start token: one forward, no batch, no padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(pretrained), AutoModelForCausalLM.from_pretrained(pretrained)
    tokens = [tokenizer.bos_token_id, *tokenizer(sentence)["input_ids"]]
    assert len(tokens) <= model.config.max_position_embeddings
    with torch.no_grad():
        logs = torch.log_softmax(model.eval().float()(torch.tensor([tokens])).logits[0], dim=-1)
    return sum(logs[place - 1, tokens[place]].item() for place in range(1, len(tokens)))


def run(pretrained, data_dir, languages, batch_size, **options):
    return lm_eval.simple_evaluate(
        "hf",
        model_args=f"pretrained={pretrained}",
        tasks=[f"amplify_flores_ppl_{code}" for code in languages],
        task_manager=manager(tasks_folder(), data_dir=str(data_dir), **options.pop("metadata", {})),
        device="cpu",
        batch_size=batch_size,
        **options,
    )


def sentences(results):
    return {
        (task, sample["doc_id"]): (sample["doc"]["sentence"], sample["bits_per_byte"][0])
        for task, logged in results["samples"].items()
        for sample in logged
    }


def test_every_score_is_a_hand_written_forward_and_no_batch_or_padding_changes_it(mirror, saved):
    one = run(saved("llama"), mirror, SCRIPTS, 1)
    alone, padded = sentences(one), sentences(run(saved("llama"), mirror, SCRIPTS, 5))
    assert len(alone) == 12
    for key, (sentence, score) in alone.items():
        assert score == pytest.approx(by_hand(saved("llama"), sentence), abs=1e-4)
        assert padded[key][1] == pytest.approx(score, abs=1e-4)
    for code in SCRIPTS:
        texts = toy_benchmarks.FLORES[code]
        total = sum(score for (task, _), (_, score) in alone.items() if task.endswith(code))
        result = one["results"][f"amplify_flores_ppl_{code}"]
        size = sum(len(text.encode()) for text in texts)
        assert result["bits_per_byte,none"] == pytest.approx(-total / math.log(2) / size)
        assert result["byte_perplexity,none"] == pytest.approx(math.exp(-total / size))
        words = sum(len(text.split()) for text in texts)
        assert result["word_perplexity,none"] == pytest.approx(math.exp(-total / words))


def test_real_sentences_in_four_scripts_score_as_forwards_by_hand(real_data, saved):
    found = sentences(run(saved("gpt2"), real_data, SCRIPTS, 4, limit=40))
    short = [pair for pair in found.values() if len(pair[0].encode()) < 200][:10]
    assert len(short) == 10
    for sentence, score in short:
        assert score == pytest.approx(by_hand(saved("gpt2"), sentence), abs=1e-3)


def test_every_metric_has_the_standard_error_of_a_ratio(mirror, saved):
    result = run(saved("gpt2"), mirror, ["ind_Latn"], 4)["results"]["amplify_flores_ppl_ind_Latn"]
    for metric in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
        assert result[f"{metric}_stderr,none"] > 0
    # By the delta method, on sentences enough for it.
    draw = random.Random(0)
    pairs = [(-draw.uniform(1, 2) * size, size) for size in (draw.randint(50, 150) for _ in range(400))]
    scores, sizes = np.asarray(pairs).T
    ratio = scores.sum() / sizes.sum()
    error = np.sqrt(((scores - ratio * sizes) ** 2).sum()) / sizes.sum()
    assert ratio_stderr(pairs, lambda ratios: -ratios / math.log(2)) == pytest.approx(error / math.log(2), rel=0.05)
    assert ratio_stderr(pairs, lambda ratios: np.exp(-ratios)) == pytest.approx(error * math.exp(-ratio), rel=0.05)
    assert ratio_stderr(pairs[::-1], lambda ratios: ratios) == ratio_stderr(pairs, lambda ratios: ratios)
    assert ratio_stderr(pairs[:1], lambda ratios: ratios) == "N/A"


def test_a_perplexity_beyond_all_numbers_is_infinite_and_stops_nothing(mirror):
    """As of a model that amplification broke, by words in a script that has no spaces between them."""
    task = ours("flores_ppl", "amplify_flores_ppl_zho_Hans", mirror)
    per_document = [task.process_results(doc, (-5000.0,)) for doc in task.eval_docs]
    values = {
        name: aggregate([metrics[name] for metrics in per_document]) for name, aggregate in task.aggregation().items()
    }
    assert values["word_perplexity"] == math.inf
    assert values["word_perplexity_stderr"] == "N/A"
    assert values["bits_per_byte"] == pytest.approx(
        3 * 5000 / math.log(2) / sum(map(len, map(str.encode, toy_benchmarks.FLORES["zho_Hans"])))
    )
    assert values["bits_per_byte_stderr"] > 0


def test_examples_cannot_be_asked_for(mirror, saved):
    results = run(saved("gpt2"), mirror, ["ind_Latn"], 4, num_fewshot=2, limit=1)
    (sample,) = results["samples"]["amplify_flores_ppl_ind_Latn"]
    assert sample["arguments"] == [(toy_benchmarks.FLORES["ind_Latn"][0],)]
    assert results["n-shot"]["amplify_flores_ppl_ind_Latn"] == 0, "and the results say so"


@pytest.mark.parametrize("named", ["jav_Latn", "Javanese", "jv"])
def test_any_language_of_flores_runs_by_metadata(named, mirror):
    task = ours("flores_ppl", "amplify_flores_ppl_any", mirror, flores_language=named)
    assert task.eval_docs["sentence"][:] == toy_benchmarks.FLORES["jav_Latn"]
    assert set(task.eval_docs["amplify_language"]) == {"jav_Latn"}


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({}, DataError, r"flores_language=None: expected one language; give it with --metadata"),
        ({"flores_language": ["jav_Latn"]}, DataError, "expected one language"),
        ({"flores_language": "Javanesee"}, LanguageError, r"unknown language 'Javanesee' \(did you mean 'Javanese'"),
        (
            {"flores_language": "sun_Latn"},
            DataError,
            r"no openlanguagedata/flores_plus \(sun_Latn\).*plus/sun_Latn and .*flores/sun_Latn.*it has ind_Latn",
        ),
    ],
)
def test_a_flores_language_without_data_is_one_line(metadata, error, message, mirror):
    with pytest.raises(error, match=message) as caught:
        ours("flores_ppl", "amplify_flores_ppl_any", mirror, **metadata)
    assert "\n" not in str(caught.value)


def test_sentences_of_two_languages_are_aligned_by_id(mirror):
    one, other = (load_flores(code, data_dir=str(mirror))["devtest"] for code in ("Indonesian", "cmn_Hans"))
    assert one["id"][:] == other["id"][:]
    assert one.column_names == other.column_names == ["id", "sentence", "amplify_language"]
    assert set(other["amplify_language"]) == {"zho_Hans"}

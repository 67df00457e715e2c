"""Translation of FLORES: prompts, pairs, and scores that are those of sacrebleu's own command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest
import tiny
import toy_benchmarks
from generated_by_hand import greedy
from lm_eval.models.huggingface import HFLM
from lss_runs import run, samples, tiny_files
from task_tools import manager, ours

from lm_eval_amplify.errors import DataError, LanguageError, LanguageIDError, ModelError
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.task_languages import language_of_task
from lm_eval_amplify.tasks_support import corpus_scores
from lm_eval_amplify.tasks_support.corpus_scores import bleu_tokenizer

ANY = "amplify_flores_translate_any"
REFERENCES = {
    "ind_Latn": ["Kereta pertama berangkat pagi sekali, pukul lima.", "Harga beras naik lagi (3,5 %)!", "Laut tenang."],
    "zho_Hans": ["第一班火车很早就出发了。", "这个星期米价又涨了3.5%。", "海面十分平静。"],
    "jpn_Jpan": ["始発列車は朝早く出発します。", "今週も米の値段が上がりました。", "海は穏やかです。"],
    "tha_Thai": ["รถไฟขบวนแรกออกแต่เช้าตรู่", "ราคาข้าวขึ้นอีกแล้วในสัปดาห์นี้", "ทะเลสงบมาก"],
    "tam_Taml": ["முதல் ரயில் அதிகாலையில் புறப்படும்.", "இந்த வாரம் அரிசி விலை மீண்டும் உயர்ந்தது.", "கடல் அமைதியாக உள்ளது."],
    "eng_Latn": ["The first train leaves early.", "The price of rice rose again (3.5%)!", "The sea is calm."],
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """The toy mirror, and FLORES in these languages."""
    folder = toy_benchmarks.write_mirror(tmp_path_factory.mktemp("mirror"))
    for code, sentences in REFERENCES.items():
        rows = [{"id": number, "sentence": sentence} for number, sentence in enumerate(sentences, start=1)]
        toy_benchmarks.write_split(folder / "facebook/flores" / code, rows, "devtest")
    return folder


def into(mirror: Path, target: str, **metadata):
    source = "eng_Latn" if target != "eng_Latn" else "ind_Latn"
    return ours("flores_translate", ANY, mirror, flores_source=source, flores_target=target, **metadata)


def damaged(sentence: str) -> str:
    """A bad translation: its last third gone, a character in the middle doubled."""
    kept = sentence[: len(sentence) * 2 // 3]
    return kept[: len(kept) // 2] + kept[len(kept) // 2 - 1 :]


def command_line(written: list[str], references: list[str], folder: Path, tokenizer: str) -> dict[str, dict]:
    """What `sacrebleu` prints of two files, as JSON."""
    paths = [folder / "written.txt", folder / "references.txt"]
    for path, lines in zip(paths, (written, references), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = f"-i {paths[0]} -m bleu chrf -tok {tokenizer} --chrf-word-order 2 -w 12".split()
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", str(paths[1]), *options], capture_output=True, text=True, check=True
    )
    return dict(zip(("bleu", "chrf++"), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(
    ("target", "tokenizer"),
    [("ind_Latn", "13a"), ("zho_Hans", "zh"), ("jpn_Jpan", "ja-mecab"), ("tha_Thai", "char"), ("tam_Taml", "13a")],
)
def test_bleu_and_chrf_are_those_of_sacrebleus_command_line_with_its_signature(target, tokenizer, mirror, tmp_path):
    task = into(mirror, target)
    assert bleu_tokenizer(target) == tokenizer
    references = REFERENCES[target]
    written = [damaged(reference) for reference in references[:2]] + [references[2]]
    metrics = [
        task.process_results(dict(doc), [f" {text}\r"]) for doc, text in zip(task.eval_docs, written, strict=True)
    ]
    results = {name: function([one[name] for one in metrics]) for name, function in task.aggregation().items()}
    signatures = task.dump_config()["sacrebleu"]
    for name, printed in command_line(written, references, tmp_path, tokenizer).items():
        assert 10 < results[name] < 100
        assert results[name] == pytest.approx(printed["score"], abs=1e-9)
        assert signatures[name] == printed["signature"]


def test_standard_errors_are_sacrebleus_bootstrap_in_any_order(mirror):
    score = corpus_scores.corpus_scores("ind_Latn")["chrf++"]
    pairs = [(damaged(text), text) for text in REFERENCES["ind_Latn"]] + [
        (text, text) for text in REFERENCES["ind_Latn"]
    ]
    error = score.standard_error(pairs)
    assert score.standard_error(pairs[::-1]) == error
    metric = score._make()
    written, references = zip(*pairs, strict=True)
    interval = metric.corpus_score(written, [references], n_bootstrap=1000)
    assert error == pytest.approx(interval._ci / 1.96, rel=0.15)
    assert score.standard_error(pairs[:1]) == "N/A"


def test_the_prompt_names_the_target_language_or_does_not(mirror):
    doc = into(mirror, "zho_Hans").eval_docs[0]
    targeted = into(mirror, "zho_Hans").doc_to_text(doc)
    assert targeted == (
        "Translate the following sentence from English into Chinese (Simplified).\n"
        "English: The first train leaves early.\nChinese (Simplified):"
    )
    name = "amplify_flores_translate_untargeted_any"
    pair = {"flores_source": "en", "flores_target": "Chinese (Simplified)"}
    untargeted = ours("flores_translate", name, mirror, **pair).doc_to_text(doc)
    assert untargeted == "Translate the following sentence.\nSentence: The first train leaves early.\nTranslation:"
    assert doc["reference"] == REFERENCES["zho_Hans"][0]
    assert doc["amplify_language"] == "zho_Hans"


def test_a_run_is_the_decoder_by_hand_cut_at_a_newline_and_its_results_carry_the_signatures(mirror, tmp_path):
    files = tiny_files(tmp_path, languages=("ind_Latn", "tam_Taml"))
    task = "amplify_flores_translate_eng_Latn-ind_Latn"
    results = run(files, [task], mirror, batch_size=3)
    assert language_of_task(task) == "ind_Latn"
    logged = samples(results, task)
    assert [sample["doc"]["reference"] for sample in logged] == REFERENCES["ind_Latn"]
    for sample in logged:
        ((prompt, options),) = sample["arguments"]
        assert options == {"until": ["\n"], "max_gen_toks": 128, "do_sample": False}
        text = greedy(files.by_hand, prompt, "ind_Latn", 128).split("\n")[0]
        assert sample["resps"] == [[text]]
        assert sample["doc"]["written"]["text"] == " ".join(text.split())
    written = [sample["doc"]["written"]["text"] for sample in logged]
    printed = command_line(written, REFERENCES["ind_Latn"], tmp_path, "13a")["chrf++"]
    assert results["results"][task]["chrf++,none"] == pytest.approx(printed["score"], abs=1e-9)
    config = results["configs"][task]
    assert config["sacrebleu"]["chrf++"] == printed["signature"]
    assert "tok:13a" in config["sacrebleu"]["bleu"]
    assert config["language_identification"]["lid"].startswith("lid.176")


def test_empty_outputs_score_nothing_and_are_in_no_language(mirror):
    task = into(mirror, "ind_Latn")
    metrics = [
        task.process_results(dict(doc), [text]) for doc, text in zip(task.eval_docs, ["", " \t", ""], strict=True)
    ]
    results = {name: function([one[name] for one in metrics]) for name, function in task.aggregation().items()}
    assert (results["bleu"], results["chrf++"], results["target_rate"], results["no_language_rate"]) == (0, 0, 0, 1)
    assert results["lid_agreement"] != results["lid_agreement"]


def test_a_copy_of_the_source_counts_as_the_source_language(mirror):
    task = into(mirror, "tam_Taml")
    doc = dict(task.eval_docs[1])
    metrics = task.process_results(doc, [doc["source"]])
    assert (metrics["target_rate"], metrics["source_rate"]) == (0, 1)
    metrics = task.process_results(doc, [doc["reference"]])
    assert (metrics["target_rate"], metrics["source_rate"]) == (1, 0)


def test_flores200_scores_stand_beside_where_its_model_is_there(mirror, tmp_path, monkeypatch):
    spm = pytest.importorskip("sentencepiece")
    assert "bleu_flores200" not in into(mirror, "ind_Latn").aggregation()
    (tmp_path / "models").mkdir()
    (tmp_path / "text").write_text("\n".join(REFERENCES["ind_Latn"] * 3))
    prefix = str(tmp_path / "models" / "flores200sacrebleuspm")
    spm.SentencePieceTrainer.train(input=str(tmp_path / "text"), model_prefix=prefix, vocab_size=36, minloglevel=9)
    Path(f"{prefix}.model").rename(prefix)
    for module in ("lm_eval_amplify.tasks_support.corpus_scores", "sacrebleu.tokenizers.tokenizer_spm"):
        monkeypatch.setattr(f"{module}.SACREBLEU_DIR", str(tmp_path))
    task = into(mirror, "ind_Latn")
    metrics = [task.process_results(dict(doc), [damaged(doc["reference"])]) for doc in task.eval_docs]
    assert task.aggregation()["bleu_flores200"]([one["bleu_flores200"] for one in metrics]) > 20
    assert "tok:flores200" in task.dump_config()["sacrebleu"]["bleu_flores200"]


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        (
            {"flores_source": "en", "flores_target": "eng_Latn"},
            LanguageError,
            "from eng_Latn into eng_Latn: expected two",
        ),
        ({"flores_source": "eng_Latn"}, DataError, "flores_target=None: expected one language; give both with"),
        ({"flores_source": "eng_Latn", "flores_target": "Javanesee"}, LanguageError, "did you mean 'Javanese'"),
        ({"flores_source": "eng_Latn", "flores_target": "ace_Latn"}, LanguageIDError, "lid.176 does not know ace_Latn"),
        (
            {"flores_source": "eng_Latn", "flores_target": "sun_Latn"},
            DataError,
            r"no openlanguagedata/flores_plus \(sun_Latn\) in data_dir=",
        ),
        (
            {"flores_source": "por_Latn", "flores_target": "eng_Latn"},
            DataError,
            r"flores_plus \(por_Latn\) in data_dir=",
        ),
    ],
)
def test_a_pair_that_cannot_be_is_one_line(metadata, error, message, mirror):
    with pytest.raises(error, match=message) as caught:
        ours("flores_translate", ANY, mirror, **metadata)
    assert "\n" not in str(caught.value)


def test_a_pair_whose_language_no_identifier_knows_is_scored_without_one(tmp_path):
    for code in ("eng_Latn", "ace_Latn"):
        toy_benchmarks.write_split(tmp_path / "facebook/flores" / code, [{"id": 1, "sentence": "Laot."}], "devtest")
    with pytest.raises(LanguageIDError, match='or do without: --metadata .{"lid": "none"}'):
        into(tmp_path, "ace_Latn")
    task = into(tmp_path, "ace_Latn", lid="none")
    metrics = task.process_results(dict(task.eval_docs[0]), ["Laot."])
    assert metrics["target_rate"] != metrics["target_rate"]
    assert task.aggregation()["chrf++"]([metrics["chrf++"]]) == pytest.approx(100)
    assert task.dump_config()["language_identification"] == {"lid": None, "second_lid": None}


def test_languages_that_are_not_aligned_are_an_error(tmp_path):
    for code, number in (("eng_Latn", 1), ("ind_Latn", 2)):
        toy_benchmarks.write_split(tmp_path / "facebook/flores" / code, [{"id": number, "sentence": "x"}], "devtest")
    with pytest.raises(
        DataError, match="of eng_Latn and of ind_Latn are not the same sentences: 1 and 1 rows, of which 0"
    ):
        into(tmp_path, "ind_Latn")


def test_japanese_without_its_dictionary_is_one_line(mirror, monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(DataError, match=r"BLEU of Japanese is by words, .*pip install 'sacrebleu\[ja\]'"):
        into(mirror, "jpn_Jpan")


def test_a_group_leaves_out_pairs_of_which_the_mirror_lacks_one_side(mirror, caplog):
    loaded = manager(tasks_folder() / "flores_translate", data_dir=str(mirror)).load("amplify_flores_translate")
    pairs = {name.removeprefix("amplify_flores_translate_") for name in loaded["tasks"]}
    others = {"ind_Latn", "zho_Hans", "jpn_Jpan", "tha_Thai", "tam_Taml", "rus_Cyrl"}
    assert pairs == {f"eng_Latn-{code}" for code in others} | {f"{code}-eng_Latn" for code in others}
    assert "amplify_flores_translate_eng_Latn-vie_Latn" in caplog.text


def test_any_model_may_translate_but_one_without_a_stop_token(mirror):
    index = manager(tasks_folder() / "flores_translate", data_dir=str(mirror))
    plain = HFLM(tiny.model("llama"), tokenizer=tiny.tokenizer(), device="cpu")
    name = "amplify_flores_translate_ind_Latn-eng_Latn"
    results = lm_eval.simple_evaluate(plain, tasks=[name], task_manager=index, limit=1)
    assert results["results"][name]["chrf++,none"] >= 0
    endless = tiny.tokenizer()
    endless.eos_token = None
    with pytest.raises(ModelError, match="no token to stop at"):
        lm_eval.simple_evaluate(
            HFLM(tiny.model("llama"), tokenizer=endless, device="cpu"), tasks=[name], task_manager=index
        )

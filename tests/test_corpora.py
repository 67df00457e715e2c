"""Corpora of JSON lines, of FLORES and of the Hub's form; chat templates."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
from texts import InMemory, sentences

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.identify.corpus import open_corpus, usual_tokens
from lm_eval_amplify.identify.framing import framing_of
from lm_eval_amplify.identify.tokens import batches, tokenize

TOKENIZER = tiny.tokenizer()


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


class TestJsonLines:
    def test_a_document_is_a_field_of_a_line(self, tmp_path: Path) -> None:
        write_rows(tmp_path / "id.jsonl", [{"text": " satu\ndua ", "n": 1}, {"text": "  "}, {"text": "tiga"}])
        (tmp_path / "et.jsonl.gz").write_bytes(gzip.compress(b'{"text": "\xc3\xbcks"}\n\n'))
        corpus = open_corpus(f"jsonl:{tmp_path}")
        assert corpus.languages == ("est_Latn", "ind_Latn")
        assert [list(corpus.documents(language)) for language in corpus.languages] == [["üks"], ["satu\ndua", "tiga"]]
        write_rows(tmp_path / "id.jsonl", [{"content": "lain"}])
        assert list(open_corpus(f"jsonl:{tmp_path}?text=content").documents("ind_Latn")) == ["lain"]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b"{", r"line 2: invalid JSON"),
            (b'{"txt": "a"}', r"line 2: .* text in 'text' \(did you mean 'txt'\?\)"),
            (b'{"text": 3}', r"line 2: expected an object with a text in 'text'"),
            (b"[]", r"line 2: expected an object"),
            (b'{"text": "\xe9"}', r"line 2: byte 0xe9 at 10 is not valid UTF-8"),
        ],
    )
    def test_a_line_without_a_text_is_named(self, tmp_path: Path, line: bytes, message: str) -> None:
        (tmp_path / "id.jsonl").write_bytes(b'{"text": "satu"}\n' + line)
        with pytest.raises(DataError, match=rf"id\.jsonl, {message}"):
            list(open_corpus(f"jsonl:{tmp_path}").documents("ind_Latn"))

    @pytest.mark.parametrize(
        ("query", "message"),
        [("?txt=a", r"no option 'txt' \(did you mean 'text'"), ("?text=", "has no value"), ("?text", "has no value")],
    )
    def test_options_are_checked(self, tmp_path: Path, query: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_corpus(f"jsonl:{tmp_path}{query}")


class TestFlores:
    @pytest.fixture
    def mirror(self, tmp_path: Path) -> Path:
        rows = [{"id": i, "sentence": f" kalimat {i} "} for i in range(3)]
        write_rows(tmp_path / "facebook/flores/ind_Latn/dev.jsonl", rows)
        plus = [{"id": i, "text": f"句子 {i}"} for i in range(3)]
        write_rows(tmp_path / "openlanguagedata/flores_plus/cmn_Hans/dev.jsonl", plus)
        return tmp_path

    def test_both_layouts_of_a_mirror_are_read(self, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for corpus in (open_corpus(f"flores:{mirror}"), open_corpus("flores")):
            assert corpus.languages == ("ind_Latn", "zho_Hans")
            assert list(corpus.documents("ind_Latn")) == ["kalimat 0", "kalimat 1", "kalimat 2"]
            assert next(corpus.documents("zho_Hans")) == "句子 0"
            with pytest.raises(DataError, match=r"no openlanguagedata/flores_plus \(est_Latn\)|ekk_Latn"):
                corpus.check("est_Latn")
            monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", str(mirror))

    @pytest.fixture(autouse=True)
    def _in_force(self, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", str(mirror))

    def test_without_a_mirror_languages_must_be_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR")
        with pytest.raises(DataError, match="name those wanted, with --languages"):
            _ = open_corpus("flores").languages

    def test_its_budget_is_one_that_its_sentences_hold(self, real_data: Path) -> None:
        assert usual_tokens(open_corpus("text:.")) == 100_000
        corpus = open_corpus(f"flores:{real_data}")
        budget = usual_tokens(corpus)
        assert len(corpus.languages) == 18
        # The fewest tokens that there can be in practice: a word each, or two characters where words have no spaces.
        for language in corpus.languages:
            documents = list(corpus.documents(language))
            assert len(documents) == 997
            words = sum(len(document.split()) for document in documents)
            assert words > 0.7 * budget or sum(map(len, documents)) / 2 > budget


class TestHub:
    @pytest.fixture
    def dataset(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        """A folder of the Hub's form."""
        monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR", raising=False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        for config in ("20231101.id", "20231101.et"):
            write_rows(tmp_path / "d" / config / "train.jsonl", [{"body": f"{config} {i}"} for i in range(3)])
        configs = [
            {"config_name": config, "data_files": [{"split": "train", "path": f"{config}/train.jsonl"}]}
            for config in ("20231101.id", "20231101.et")
        ] + [{"config_name": "id", "data_files": [{"split": "test", "path": "20231101.id/train.jsonl"}]}]
        (tmp_path / "d/README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
        return str(tmp_path / "d")

    def test_a_config_is_found_by_its_form_or_by_a_name_of_the_language(self, dataset: str) -> None:
        corpus = open_corpus(f"hub:{dataset}?text=body&config=20231101.{{iso639_1}}")
        assert list(corpus.documents("est_Latn")) == [f"20231101.et {i}" for i in range(3)]
        with pytest.raises(DataError, match="name the languages, with --languages"):
            _ = corpus.languages
        corpus = open_corpus(f"hub:{dataset}?text=body&split=test")
        assert corpus.languages == ("ind_Latn",)
        assert next(corpus.documents("ind_Latn")) == "20231101.id 0"
        with pytest.raises(DataError, match="has no config of est_Latn; it has ind_Latn; say how"):
            corpus.check("est_Latn")

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("?config=20231101.{iso639_1}", "row 1 has no text in 'text'; it has body; name the column"),
            ("?text=body&split=dev", r"cannot read .*, split dev: .*dev"),
            ("?text=body&config={iso}", r"config '\{iso\}' is not made of \{code\}"),
            ("?text=body&config=fr", r"cannot read .* \(fr\), split train"),
        ],
    )
    def test_what_is_not_there_is_named(self, dataset: str, query: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            open_corpus(f"hub:{dataset}{query}").check("ind_Latn")

    def test_a_dataset_that_cannot_be_had_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("LM_EVAL_AMPLIFY_DATA_DIR", raising=False)
        with pytest.raises(DataError, match=r"corpus hub:org/none: cannot read org/none: .* give a mirror") as caught:
            open_corpus("hub:org/none").check("ind_Latn")
        assert "\n" not in str(caught.value)

    def test_a_mirror_in_force_is_read_instead(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_rows(tmp_path / "org/name/id/train.jsonl", [{"text": "satu"}])
        monkeypatch.setenv("LM_EVAL_AMPLIFY_DATA_DIR", str(tmp_path))
        corpus = open_corpus("hub:org/name")
        assert (corpus.languages, list(corpus.documents("ind_Latn"))) == (("ind_Latn",), ["satu"])


class TestChatTemplate:
    def test_the_model_sees_the_whole_turn_and_only_the_text_counts(self) -> None:
        documents = sentences("tam_Taml", 6) + sentences("zho_Hans", 6)
        text = tokenize(InMemory({"x": documents}), "x", TOKENIZER, 10**6, allow_short=True, chat_template=True)
        seen = {}
        for batch in batches(text, max_length=256, batch_tokens=999):
            for row, is_counted, document in zip(batch.ids, batch.is_counted, batch.document, strict=True):
                seen[document] = (row.tolist(), is_counted)
        for number, document in enumerate(documents):
            turn = [{"role": "user", "content": document}]
            whole = TOKENIZER.apply_chat_template(turn, tokenize=True, return_dict=True)["input_ids"]
            row, is_counted = seen[number]
            behind = int(np.flatnonzero(is_counted)[-1]) + 1
            assert row[:behind] == whole[:behind]
            assert TOKENIZER.decode(np.array(row)[is_counted]) == document

    def test_a_token_of_the_template_and_the_text_counts_and_prefixes_are_what_all_texts_share(self) -> None:
        tokenizer = tiny.tokenizer()
        # ' vol' is a token of the training text; the template ends in the space.
        tokenizer.chat_template = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
        framing = framing_of(tokenizer, chat_template=True)
        (ids,) = framing.encode(["voolas"])
        assert tokenizer.decode([*framing.prefix, *np.where(ids < 0, ~ids, ids)]) == "[INST] voolas"
        assert tokenizer.decode(framing.prefix) == "[INST]"
        assert (ids >= 0).all()
        (ids,) = framing.encode(["中"])
        assert tokenizer.decode(ids[ids >= 0]) in ("中", " 中")

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            (None, "has no chat template: leave --chat-template out"),
            ("hello", "does not hold the user's text exactly once"),
            ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "exactly once"),
            ("{{ raise_exception('no') }}", "chat template fails: no"),
        ],
    )
    def test_a_template_that_does_not_do_is_an_error(self, template: str | None, message: str) -> None:
        tokenizer = tiny.tokenizer()
        tokenizer.chat_template = template
        with pytest.raises(DataError, match=message):
            framing_of(tokenizer, chat_template=True)

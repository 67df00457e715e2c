"""Texts: reading folders, and tokenizing to a budget."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import InMemory, sentences
from tokenizers.processors import TemplateProcessing

from lm_eval_amplify.errors import DataError
from lm_eval_amplify.identify.corpus import open_corpus
from lm_eval_amplify.identify.folders import TextFolder
from lm_eval_amplify.identify.framing import framing_of, special_ids
from lm_eval_amplify.identify.tokens import batches, tokenize

TOKENIZER = tiny.tokenizer()
END, PAD = 0, 1


class TestTextFolder:
    def test_a_document_is_a_line_and_blank_lines_and_byte_order_marks_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "ind_Latn.txt").write_bytes("\ufeffsatu\r\n\n  \ndua\u2028tiga\n  empat  ".encode())
        assert list(TextFolder(str(tmp_path)).documents("ind_Latn")) == ["satu", "dua\u2028tiga", "empat"]

    def test_compressed_files_and_other_names_of_languages_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "id.txt.gz").write_bytes(gzip.compress(b"satu\n"))
        (tmp_path / "Estonian.txt").write_text("üks\n", encoding="utf-8")
        (tmp_path / "notes on the data.txt").write_text("no language")
        corpus = open_corpus(f"text:{tmp_path}")
        assert corpus.languages == ("est_Latn", "ind_Latn")
        assert [list(corpus.documents(language)) for language in corpus.languages] == [["üks"], ["satu"]]

    def test_invalid_utf8_names_file_and_line(self, tmp_path: Path) -> None:
        path = tmp_path / "ind_Latn.txt"
        path.write_bytes(b"satu\n\ndu\xe9a\n")
        with pytest.raises(DataError) as caught:
            list(TextFolder(str(tmp_path)).documents("ind_Latn"))
        assert str(caught.value).startswith(f"{path}, line 3: byte 0xe9 at 2 is not valid UTF-8")

    @pytest.mark.parametrize("content", [b"", b"\n \n"])
    def test_an_empty_file_is_an_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "ind_Latn.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"ind_Latn\.txt is empty: expected texts in ind_Latn"):
            list(TextFolder(str(tmp_path)).documents("ind_Latn"))

    def test_a_language_without_a_file_names_what_was_looked_for_and_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "ind_Latn.txt").write_text("satu")
        with pytest.raises(DataError, match=r"has no zsm_Latn\.txt or zsm_Latn\.txt\.gz.*: there are ind_Latn"):
            TextFolder(str(tmp_path)).check("zsm_Latn")

    def test_two_files_of_one_language_are_an_error(self, tmp_path: Path) -> None:
        for name in ("id.txt", "ind_Latn.txt"):
            (tmp_path / name).write_text("satu")
        with pytest.raises(DataError, match=r"several files of ind_Latn: id\.txt and ind_Latn\.txt"):
            TextFolder(str(tmp_path)).check("ind_Latn")

    def test_a_damaged_archive_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "ind_Latn.txt.gz").write_bytes(gzip.compress(b"satu\n" * 99)[:-9])
        with pytest.raises(DataError, match=r"cannot read .*ind_Latn\.txt\.gz"):
            list(TextFolder(str(tmp_path)).documents("ind_Latn"))

    @pytest.mark.parametrize("address", ["text", "text:", "flores:", "txet:/tmp", "/tmp"])
    def test_an_address_of_no_known_form_is_an_error(self, address: str) -> None:
        with pytest.raises(DataError, match="expected text:DIR"):
            open_corpus(address)

    def test_a_folder_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(DataError, match="there is no folder /no/such"):
            open_corpus("text:/no/such")


class TestBudget:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 150))
    def test_exactly_the_first_tokens_are_taken(self, budget: int) -> None:
        documents = sentences("ind_Latn")
        text = tokenize(InMemory({"ind_Latn": documents}), "ind_Latn", TOKENIZER, budget)
        everything = [token for document in documents for token in TOKENIZER.encode(document)]
        assert text.ids.tolist() == everything[:budget]
        assert text.tokens == text.starts[-1] == budget

    def test_special_tokens_in_a_text_are_read_but_do_not_count(self) -> None:
        corpus = InMemory({"ind_Latn": ["ab<|pad|>cd", "ef"]})
        text = tokenize(corpus, "ind_Latn", TOKENIZER, 5)
        assert text.tokens == 5
        (batch,) = batches(text, max_length=64, batch_tokens=640)
        assert (batch.ids[0] == PAD).sum() == 1
        np.testing.assert_array_equal(batch.is_counted[0], batch.ids[0] != PAD)
        assert batch.is_counted.sum() == 5

    def test_too_few_tokens_are_an_error_unless_allowed(self) -> None:
        corpus = InMemory({"ind_Latn": ["satu dua", "tiga"]})
        number = sum(len(TOKENIZER.encode(document)) for document in ["satu dua", "tiga"])
        with pytest.raises(DataError, match=f"has {number} tokens of ind_Latn, fewer than the 1000 asked for"):
            tokenize(corpus, "ind_Latn", TOKENIZER, 1000)
        assert tokenize(corpus, "ind_Latn", TOKENIZER, 1000, allow_short=True).tokens == number

    def test_texts_of_special_tokens_alone_are_an_error(self) -> None:
        with pytest.raises(DataError, match="hold no token but special ones"):
            tokenize(InMemory({"ind_Latn": ["<|end|>"]}), "ind_Latn", TOKENIZER, 5, allow_short=True)


class TestSpecialTokens:
    def test_those_that_a_tokenizer_puts_before_a_text_are_its_prefix_and_those_behind_are_not(self) -> None:
        tokenizer = tiny.tokenizer()
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|end|> $A <|pad|>", special_tokens=[("<|end|>", 0), ("<|pad|>", 1)]
        )
        assert framing_of(tokenizer, chat_template=False).prefix == (0,)
        assert special_ids(tokenizer) == {0, 1}

    def test_the_unknown_token_is_text(self) -> None:
        tokenizer = tiny.tokenizer()
        tokenizer.add_special_tokens({"unk_token": "<|unk|>"})
        assert tokenizer.convert_tokens_to_ids("<|unk|>") not in special_ids(tokenizer)
        tokenizer.add_special_tokens({"unk_token": "<|end|>"})
        assert END in special_ids(tokenizer)


class TestBatches:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(3, 40), st.integers(1, 400), st.sampled_from([(), (0,), (0, 1)]))
    def test_they_hold_every_token_once_in_its_document(
        self, max_length: int, batch_tokens: int, prefix: tuple[int, ...]
    ) -> None:
        text = tokenize(InMemory({"ind_Latn": sentences("ind_Latn")}), "ind_Latn", TOKENIZER, 140)
        text = replace(text, prefix=prefix)
        by_document: dict[int, list[int]] = {}
        for batch in batches(text, max_length=max_length, batch_tokens=batch_tokens):
            assert batch.ids.shape[1] <= max_length
            assert batch.ids.size <= max(batch_tokens, batch.ids.shape[1])
            for document, ids, is_counted in zip(batch.document, batch.ids, batch.is_counted, strict=True):
                assert tuple(ids[: len(prefix)]) == prefix
                assert not is_counted[: len(prefix)].any()
                by_document.setdefault(document, []).extend(ids[is_counted].tolist())
        for document, found in by_document.items():
            # Windows of a document come the longest first, and all but its last are equally long.
            assert found == text.ids[text.starts[document] : text.starts[document + 1]].tolist()
        assert len(by_document) == text.documents

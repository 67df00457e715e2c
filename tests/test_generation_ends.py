"""Rows end where the harness's criteria end them, though few steps are decoded."""

from __future__ import annotations

import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.models.utils_hf import MultiTokenEOSCriteria
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lm_eval_amplify.generation.ends import Ends, StopString, TokenTexts


def byte_fallback() -> transformers.PreTrainedTokenizerFast:
    """As SentencePiece models have it: a space belongs to the word behind it, unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "a", "b", ".", "▁a", "▁b", "ab", ".▁", "▁a.", "ba", "。", "்"]
    unigram = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0, byte_fallback=True))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=unigram, bos_token="<s>", eos_token="</s>")


def word_pieces() -> transformers.PreTrainedTokenizerFast:
    pieces = ["[UNK]", "[SEP]", "a", "b", "##a", "##b", ".", "ab", "##ab", ",", "'", "s"]
    model = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoders.WordPiece()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="[SEP]", clean_up_tokenization_spaces=True
    )


TOKENIZERS = {"byte level": tiny.tokenizer(), "byte fallback": byte_fallback(), "word pieces": word_pieces()}
STRINGS = st.one_of(
    st.sampled_from(["\n", "\n\n", "", " ", "。", "்", "்.", "ab", " a", "a ", ". ", "b.", "<|end|>", "</s>", "[SEP]"]),
    st.text(alphabet="ab. \n\ufffd", min_size=1, max_size=3),
)


def ends_of(tokenizer, strings, limit=1000, last_tokens=(), rows=1):
    stops = [StopString(one, MultiTokenEOSCriteria(one, tokenizer, 0, 1).sequence_id_len) for one in strings]
    return Ends(rows, last_tokens=last_tokens, stop_strings=stops, texts=TokenTexts(tokenizer), limit=limit)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(STRINGS, min_size=1, max_size=3, unique=True), st.data())
def test_a_row_ends_at_the_token_at_which_the_harness_would_end_it_alone(name, strings, data):
    tokenizer = TOKENIZERS[name]
    # Tokens of characters' bytes and of the strings themselves come up often.
    likely = [token for one in [*strings, "்。 a.\n"] for token in tokenizer.encode(one, add_special_tokens=False)]
    token = st.one_of(st.sampled_from(likely or [0]), st.integers(0, len(tokenizer) - 1))
    tokens = data.draw(st.lists(token, min_size=1, max_size=14))
    criteria = [MultiTokenEOSCriteria(one, tokenizer, 2, 1) for one in strings]
    ends = ends_of(tokenizer, strings)
    for length in range(1, len(tokens) + 1):
        seen = torch.tensor([[5, 6, *tokens[:length]]])
        found = [criterion(seen, None) for criterion in criteria]  # each must be asked
        expected = any(found)
        assert ends.add(0, tokens[length - 1]) == expected
        if expected:
            return


def test_a_string_of_bytes_that_becomes_readable_later_ends_a_row_then():
    """A newline behind half a character is none until the half has left the tokens that are searched."""
    tokenizer = TOKENIZERS["byte fallback"]
    half, newline, a = tokenizer.convert_tokens_to_ids(["<0xE1>", "<0x0A>", "a"])
    criterion = MultiTokenEOSCriteria("\n", tokenizer, 0, 1)
    ends = ends_of(tokenizer, ["\n"])
    tokens = [a, half, newline, a, a, a]
    asked = [criterion(torch.tensor([tokens[: i + 1]]), None) for i in range(len(tokens))]
    assert asked == [ends.add(0, token) for token in tokens]
    assert asked[2] is False
    assert any(asked)


def test_a_character_written_byte_by_byte_ends_a_row():
    tokenizer = TOKENIZERS["byte fallback"]
    tokens = tokenizer.convert_tokens_to_ids(["a", "<0xE3>", "<0x80>", "<0x82>"])
    ends = ends_of(tokenizer, ["。"])
    assert [ends.add(0, token) for token in tokens] == [False, False, False, True]


def test_rows_end_by_themselves():
    ends = ends_of(tiny.tokenizer(), [], limit=3, last_tokens=[7], rows=3)
    assert [ends.add(row, token) for row, token in ((0, 5), (1, 7), (2, 5))] == [False, True, False]
    assert [ends.add(row, token) for row, token in ((0, 5), (2, 7))] == [False, True]
    assert ends.add(0, 5)
    assert ends.tokens == [[5, 5, 5], [7], [5, 7]]


def test_few_steps_are_decoded():
    tokenizer = tiny.tokenizer()
    decoded = []

    class Counting(TokenTexts):
        def decode(self, tokens):
            decoded.append(tokens)
            return super().decode(tokens)

    stops = [StopString("\n", 3), StopString("<|end|>", 3)]
    ends = Ends(1, last_tokens=(), stop_strings=stops, texts=Counting(tokenizer), limit=1000)
    tokens = tokenizer.encode("The quick brown fox jumps over the lazy dog. ") * 10
    assert not any(ends.add(0, token) for token in tokens)
    assert len(decoded) == len(set(tokens)) < len(tokens) / 5  # each token once, to know what it may write


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_the_tokenizers_of_these_tests_write_what_they_read(name):
    assert (
        TOKENIZERS[name].decode(TOKENIZERS[name].encode("ab a. b", add_special_tokens=False)).replace(" ", "")
        == "aba.b"
    )

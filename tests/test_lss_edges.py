"""LSS where facts, templates, targets or arguments are not as one would like them."""

from __future__ import annotations

import gzip
import json
import math
import unicodedata

import numpy as np
import pytest
from lss_by_hand import HUB_PATH, read_rows, write_mirror
from lss_runs import run, samples, synthetic_rows, tiny_files

from lm_eval_amplify.errors import DataError, LanguageError, NeuronFileError, NoTargetError
from lm_eval_amplify.tasks_support.bootstrap import bootstrap_stderr
from lm_eval_amplify.tasks_support.fact_data import fact_documents, load_facts
from lm_eval_amplify.tasks_support.facts import Cloze, fill_template
from lm_eval_amplify.tasks_support.lss_metrics import metrics_of
from lm_eval_amplify.tasks_support.nan_means import nan_mean
from lm_eval_amplify.tasks_support.targets import asked_targets

TASK = "amplify_lss_mlama_ind_Latn"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("tiny"))


def documents(rows, asked=("est_Latn", "tam_Taml"), **options):
    given = {"source": "facts", "base_language": "ind_Latn", "asked": asked} | options
    return list(fact_documents(rows, list(rows[0]), **given))


def facts() -> list[dict]:
    return [dict(row) for row in synthetic_rows()["id"]]


@pytest.mark.parametrize(
    ("template", "language", "prompt", "joint"),
    [
        ("La langue de [X] est [Y].", "fra_Latn", "La langue de S est", " "),
        ("[X] est la langue de l'[Y].", "fra_Latn", "S est la langue de l'", ""),
        ("[X] [Y] ülkesinde.", "tur_Latn", "S", " "),
        ("[X]与[Y]共享边界。", "zho_Hans", "S与", ""),
        ("[X] 与 [Y] 共享边界。", "zho_Hans", "S 与", ""),
        ("[X]は [Y] です。", "jpn_Jpan", "Sは", ""),
        ("[X] คือ [Y]", "tha_Thai", "S คือ", ""),
        ("[X], [X]: [Y] [X]", "eng_Latn", "S, S:", " "),
    ],
)
def test_an_object_is_joined_as_the_template_writes_it_and_without_a_space_in_scripts_without_spaces(
    template, language, prompt, joint
):
    assert fill_template(template, "S", language) == Cloze(prompt, joint)


def test_facts_that_name_the_subject_after_the_object_are_left_out_and_counted(tmp_path, files, caplog):
    rows = facts()
    rows[1]["template"] = "Ibu kota [Y] adalah [X]."
    with caplog.at_level("INFO", logger="lm_eval"):
        results = run(files, [TASK], write_mirror(tmp_path, {"id": rows}), language="est_Latn")
    assert results["n-samples"][TASK]["original"] == len(rows) - 1
    assert "1 of 4 facts left out" in caplog.text


def test_a_missing_name_or_an_equal_object_gives_no_value_and_is_counted_as_skipped(tmp_path, files):
    rows = facts()
    rows[0]["obj_et"] = None
    rows[1]["obj_et"] = "  "
    rows[2]["obj_id"] = unicodedata.normalize("NFC", "Perú")
    rows[2]["obj_et"] = unicodedata.normalize("NFD", "Perú")
    rows[3]["sub_id"] = ""
    rows.append(facts()[0] | {"obj_id": None})
    rows.append(facts()[1])
    results = run(files, [TASK], write_mirror(tmp_path, {"id": rows}), metadata={"targets": "est_Latn+tam_Taml"})
    found = samples(results, TASK)
    assert [math.isnan(sample["lss_est_Latn"]) for sample in found] == [True] * 5 + [False]
    assert [math.isnan(sample["shift_tam_Taml"]) for sample in found] == [False] * 3 + [True, True, False]
    assert [sample["skipped"] for sample in found] == [1, 1, 1, 2, 2, 0]
    assert len({tuple(sample["metrics"]) for sample in found}) == 1
    for sample in found[:3]:
        assert sample["shift"] == sample["shift_tam_Taml"]
    assert math.isnan(found[3]["lss"])
    result = results["results"][TASK]
    assert result["skipped,none"] == 7
    assert result["shift_est_Latn,none"] == found[5]["shift_est_Latn"]
    assert result["shift,none"] == nan_mean([sample["shift"] for sample in found])
    assert isinstance(result["shift_stderr,none"], float)


def test_facts_without_any_value_end_in_nan_and_not_in_an_error(tmp_path, files):
    rows = [row | {"obj_et": row["obj_id"]} for row in facts()]
    results = run(files, [TASK], write_mirror(tmp_path, {"id": rows}), language="est_Latn")
    result = results["results"][TASK]
    assert math.isnan(result["lss,none"])
    assert math.isnan(result["shift_est_Latn,none"])
    assert result["lss_stderr,none"] == "N/A"
    assert result["skipped,none"] == len(rows)


def test_log_likelihoods_that_are_not_numbers_count_as_skipped_with_a_warning(tmp_path, files, caplog):
    mirror = write_mirror(tmp_path, {"id": facts()[:1]})
    results = run(files, [TASK], mirror, language="est_Latn", operation="set", statistic="one", factor=1e39)
    assert results["results"][TASK]["skipped,none"] == 1
    assert math.isnan(results["results"][TASK]["lss,none"])
    assert "not finite" in caplog.text


def test_the_base_language_is_no_target_of_its_own(tmp_path, files):
    mirror = write_mirror(tmp_path, {"id": facts()})
    results = run(files, [TASK], mirror, metadata={"targets": "ind_Latn+est_Latn"})
    assert "lss_ind_Latn,none" not in results["results"][TASK]
    with pytest.raises(NoTargetError, match="base language ind_Latn: got ind_Latn, expected another one"):
        run(files, [TASK], mirror, language="id")


def test_a_target_without_objects_is_left_out_with_a_log_line_and_an_error_where_none_is_left(caplog):
    with caplog.at_level("INFO", logger="lm_eval"):
        assert documents(facts(), ("swh_Latn", "est_Latn"))[0]["targets"] == ["est_Latn"]
    assert "no objects in swh_Latn: left out of the targets" in caplog.text
    with pytest.raises(NoTargetError, match="got swh_Latn"):
        documents(facts(), ("swh_Latn",))


def test_a_neuron_file_without_the_target_language_is_an_error_that_says_what_it_has(tmp_path, files):
    mirror = write_mirror(tmp_path, {"id": facts()})
    with pytest.raises(LanguageError, match=r"no language 'fra_Latn'.*it has est_Latn, hat_Latn"):
        run(files, [TASK], mirror, metadata={"targets": "fra_Latn"})


def test_no_fact_left_is_an_error():
    with pytest.raises(DataError, match=r"facts: no fact left of 2: in every template \[X\] comes after \[Y\]"):
        documents([row | {"template": "[Y] [X]"} for row in facts()[:2]])


@pytest.mark.parametrize("template", [None, "", "no slots", "[X] alone", "[Y] alone"])
def test_a_template_without_both_slots_is_an_error_that_names_the_row(template):
    with pytest.raises(DataError, match=r"facts, row 2: template .* expected a text with \[X\] and \[Y\]"):
        documents([facts()[0], facts()[1] | {"template": template}])


def test_a_cell_that_is_no_text_is_an_error_that_names_row_and_column():
    with pytest.raises(DataError, match="facts, row 1: column 'obj_et' holds 7"):
        documents([facts()[0] | {"obj_et": 7}])


@pytest.mark.parametrize("column", ["template", "sub_id", "obj_id"])
def test_a_missing_column_is_an_error_that_says_what_is_expected(column):
    rows = [{name: value for name, value in row.items() if name != column} for row in facts()]
    with pytest.raises(DataError, match=r"expected the columns template, sub_<l> and obj_<l>.*of ind_Latn; it has"):
        documents(rows)


def test_columns_may_be_named_by_any_code_of_a_language():
    renamed = {"sub_id": "sub_ind_Latn", "obj_id": "obj_ind", "obj_et": "obj_est_Latn", "obj_ta": "obj_tam"}
    rows = [{renamed.get(name, name): value for name, value in row.items()} for row in facts()]
    assert documents(rows) == documents(facts())


def test_an_unknown_wording_is_an_error():
    with pytest.raises(DataError, match=r"wording='papre' \(did you mean 'paper'\?\)"):
        documents(facts(), wording="papre")


def test_targets_come_from_the_metadata_then_the_models_language_then_the_neuron_file(files):
    assert asked_targets(targets="et+id", language="ta", neurons=files.neurons) == ("est_Latn", "ind_Latn")
    assert asked_targets(targets=["Estonian", "et"], language="task") == ("est_Latn",)
    assert asked_targets(language="ta+zh", neurons=files.neurons) == ("tam_Taml", "zho_Hans")
    assert asked_targets(language="task", neurons=files.neurons) == files.content.languages
    assert asked_targets(neurons=files.content) == files.content.languages


@pytest.mark.parametrize("targets", ["", "et++id", [], ["et", 3], 7])
def test_targets_that_are_no_list_of_languages_are_an_error(targets):
    with pytest.raises(LanguageError, match="expected a list of languages, or codes joined with"):
        asked_targets(targets=targets)


def test_an_unreadable_neuron_file_is_its_own_error(tmp_path):
    with pytest.raises(NeuronFileError, match="no neuron file"):
        asked_targets(neurons=tmp_path / "none.safetensors")


def test_facts_load_from_a_compressed_mirror_and_name_what_they_looked_for_in_one_without_them(tmp_path):
    folder = tmp_path / HUB_PATH / "id"
    folder.mkdir(parents=True)
    with gzip.open(folder / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in facts())
    given = {"hub_path": HUB_PATH, "splits": ["test"], "base_language": "ind_Latn", "targets": "et"}
    loaded = load_facts(hub_name="id", data_dir=str(tmp_path), **given)["test"]
    assert list(loaded) == documents(facts(), ("est_Latn",))
    with pytest.raises(DataError, match=rf"no {HUB_PATH} \(tr\)"):
        load_facts(hub_name="tr", data_dir=str(tmp_path), **given)


def test_real_facts_keep_all_rows_and_join_chinese_without_spaces(real_data):
    for base, language in (("zh", "zho_Hans"), ("ta", "tam_Taml"), ("et", "est_Latn")):
        rows = read_rows(real_data, base)
        found = documents(rows, ("fra_Latn",), base_language=language)
        assert len(found) == len(rows)
        assert {document["continuation"][0] == " " for document in found} == {base != "zh"}
        assert not any("[" in document["prompt"] for document in found)


def test_metrics_have_the_same_keys_with_the_means_before_their_standard_errors():
    names = list(metrics_of({"a": 1.5, "b": math.nan}))
    assert names == list(metrics_of({"a": math.nan, "b": -2.0}))
    assert names.index("lss") < names.index("lss_stderr")
    assert names.index("shift") < names.index("shift_stderr")
    assert metrics_of({"a": 1.5, "b": -0.5, "c": 0.0, "d": math.nan})["lss"] == pytest.approx(1 / 3)


def test_the_bootstrap_is_that_of_a_mean_and_knows_no_order():
    values = np.random.default_rng(1).normal(0, 2, 400)
    assert bootstrap_stderr(values) == pytest.approx(values.std() / 20, rel=0.03)
    assert bootstrap_stderr(values) == bootstrap_stderr(values[::-1])
    with_missing = [*values, *[math.nan] * 400]
    assert bootstrap_stderr(with_missing) == pytest.approx(values.std() / 20, rel=0.05)
    assert bootstrap_stderr([1.0, math.nan]) == "N/A"
    assert bootstrap_stderr([0.5, 0.5, math.nan]) == 0.0

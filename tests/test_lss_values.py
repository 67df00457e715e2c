"""LSS through the harness is the formula, fact by fact, as a slow second implementation computes it."""

from __future__ import annotations

import math

import pytest
import tiny
from lss_by_hand import CODES, SHORT, cloze, paper, read_rows, write_mirror
from lss_runs import run, samples, synthetic_rows, tiny_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tiny_files(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return write_mirror(tmp_path_factory.mktemp("mirror"), synthetic_rows())


def sign(shift: float) -> float:
    return math.nan if math.isnan(shift) else float(shift > 0)


def expect(results, files, task: str, rows: list[dict], base: str, targets: list[str], wording=cloze) -> None:
    """Compare every fact's metrics, and their means, with the slow implementation's."""
    found = samples(results, task)
    assert len(found) == len(rows)
    all_shifts = {target: [] for target in targets}
    means = []
    for sample, row in zip(found, rows, strict=True):
        shifts = {t: files.by_hand.shift(row, SHORT[base], SHORT[t], wording) for t in targets}
        assert {name for name in sample if name.startswith("shift_")} == {
            "shift_stderr", *(f"shift_{t}" for t in targets)
        }  # fmt: skip
        for target, shift in shifts.items():
            all_shifts[target].append(shift)
            assert sample[f"shift_{target}"] == pytest.approx(shift, abs=2e-4, nan_ok=True)
            assert math.isnan(shift) or shift == 0 or abs(shift) > 2e-4, "too near 0 to say what its sign is"
            assert sample[f"lss_{target}"] == pytest.approx(sign(shift), nan_ok=True)
        known = [shift for shift in shifts.values() if not math.isnan(shift)]
        assert sample["skipped"] == len(shifts) - len(known)
        assert sample["shift"] == pytest.approx(sum(known) / len(known), abs=2e-4)
        assert sample["lss"] == pytest.approx(sum(shift > 0 for shift in known) / len(known))
        means.append(sum(known) / len(known))
    result = results["results"][task]
    assert result["shift,none"] == pytest.approx(sum(means) / len(means), abs=2e-4)
    for target, shifts in all_shifts.items():
        known = [shift for shift in shifts if not math.isnan(shift)]
        assert result[f"shift_{target},none"] == pytest.approx(sum(known) / len(known), abs=2e-4)
        assert result[f"lss_{target},none"] == pytest.approx(sum(shift > 0 for shift in known) / len(known))


@pytest.mark.parametrize("base", ["zh", "ta"])
def test_all_real_facts_under_a_fixed_language_are_the_formula(files, real_data, base):
    task = f"amplify_lss_mlama_{CODES[base]}"
    results = run(files, [task], real_data, language="ind_Latn")
    expect(results, files, task, read_rows(real_data, base), CODES[base], ["ind_Latn"])


def test_real_facts_under_the_language_of_the_task_are_the_formula_for_every_language_of_the_neuron_file(
    files, real_data
):
    rows = read_rows(real_data, "id")[:12]
    task = "amplify_lss_mlama_ind_Latn"
    results = run(files, [task], real_data, limit=12)
    # Of the file's languages Haitian Creole and Swahili have no objects, and Indonesian is the base.
    expect(results, files, task, rows, "ind_Latn", ["est_Latn", "tam_Taml", "zho_Hans"])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_made_up_facts_are_the_formula_for_two_targets_and_other_architectures(tmp_path, synthetic, family):
    files = tiny_files(tmp_path, family)
    tasks = [f"amplify_lss_mlama_{CODES[base]}" for base in ("id", "zh", "tr")]
    results = run(files, tasks, synthetic, metadata={"targets": "tam_Taml+et"})
    for task, base in zip(tasks, ("id", "zh", "tr"), strict=True):
        expect(results, files, task, synthetic_rows()[base], CODES[base], ["tam_Taml", "est_Latn"])


def test_targets_may_be_a_list_and_go_before_the_models_language(files, synthetic):
    task = "amplify_lss_mlama_tur_Latn"
    results = run(files, [task], synthetic, metadata={"targets": ["zh", "ind_Latn"]}, language="est_Latn")
    expect(results, files, task, synthetic_rows()["tr"], "tur_Latn", ["zho_Hans", "ind_Latn"])


def test_each_of_several_fixed_languages_is_a_target_of_its_own(files, synthetic):
    task = "amplify_lss_mlama_tur_Latn"
    results = run(files, [task], synthetic, language="zho_Hans+ind_Latn")
    expect(results, files, task, synthetic_rows()["tr"], "tur_Latn", ["zho_Hans", "ind_Latn"])


def test_batches_of_several_requests_change_nothing(files, synthetic):
    task = "amplify_lss_mlama_tur_Latn"
    results = run(files, [task], synthetic, batch_size=8)
    expect(
        results,
        files,
        task,
        synthetic_rows()["tr"],
        "tur_Latn",
        ["est_Latn", "ind_Latn", "tam_Taml", "zho_Hans"],
    )


@pytest.mark.parametrize("base", ["et", "zh"])
def test_the_papers_variant_is_the_rule_of_its_code_on_real_facts(files, real_data, base):
    task = f"amplify_lss_mlama_paper_{CODES[base]}"
    results = run(files, [task], real_data, limit=10, language="ind_Latn")
    expect(results, files, task, read_rows(real_data, base)[:10], CODES[base], ["ind_Latn"], paper)


def test_the_papers_variant_is_the_rule_of_its_code_on_made_up_facts(files, synthetic):
    tasks = [f"amplify_lss_mlama_paper_{CODES[base]}" for base in ("id", "zh", "tr")]
    results = run(files, tasks, synthetic, language="est_Latn")
    for task, base in zip(tasks, ("id", "zh", "tr"), strict=True):
        expect(results, files, task, synthetic_rows()[base], CODES[base], ["est_Latn"], paper)
    prompts = {sample["doc"]["prompt"] for task in tasks for sample in samples(results, task)}
    assert {"Paris adalah ibu kota.", "巴黎是[Y]的首都。", "巴黎 在。", "Paris ülkesindedir."} <= prompts


def test_the_papers_variant_counts_equal_objects_as_no_shift(tmp_path, files):
    rows = [fact | {"obj_et": fact["obj_id"]} for fact in synthetic_rows()["id"][:2]]
    rows[1]["obj_et"] = "Jaapan"
    mirror = write_mirror(tmp_path, {"id": rows})
    task = "amplify_lss_mlama_paper_ind_Latn"
    first, second = samples(run(files, [task], mirror, language="est_Latn"), task)
    assert (first["shift"], first["lss"], first["skipped"]) == (0.0, 0.0, 0)
    assert second["shift"] != 0


def test_the_papers_variant_keeps_names_as_they_are_and_facts_that_name_the_subject_last(tmp_path, files):
    rows = [synthetic_rows()["id"][0] | {"template": "Ibu kota [Y] adalah [X].", "obj_et": "Prantsusmaa "}]
    task = "amplify_lss_mlama_paper_ind_Latn"
    results = run(files, [task], write_mirror(tmp_path, {"id": rows}), language="est_Latn")
    expect(results, files, task, rows, "ind_Latn", ["est_Latn"], paper)


def test_the_tiny_files_tell_the_languages_apart():
    assert len({tuple(own.index) for own in tiny.neurons("qwen2").neurons.values()}) == len(tiny.LANGUAGES)

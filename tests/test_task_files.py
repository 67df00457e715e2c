"""The task files: one per language over a shared base, kept in step with their script; names, tags, languages."""

from __future__ import annotations

import re
import runpy

import pytest
import yaml
from lss_by_hand import CODES
from task_tools import STOCK, manager

from lm_eval_amplify.languages import PAPER_LANGUAGES, canonical_language
from lm_eval_amplify.resources import tasks_folder
from lm_eval_amplify.task_languages import language_of_task

SCRIPT = runpy.run_path(str(tasks_folder() / "_generate_configs.py"))
BY_HAND = {
    "flores_ppl/amplify_flores_ppl_any.yaml",
    "flores_translate/amplify_flores_translate_any.yaml",
    "flores_translate/amplify_flores_translate_untargeted_any.yaml",
}


@pytest.fixture(scope="module")
def index():
    return manager(tasks_folder()).task_index


def test_the_generated_files_are_in_step_with_their_script():
    folders = sorted({benchmark.folder for benchmark in SCRIPT["BENCHMARKS"]})
    there = {
        f"{folder}/{path.name}": path.read_text(encoding="utf-8")
        for folder in folders
        for path in (tasks_folder() / folder).glob("*.yaml")
    }
    assert {name: text for name, text in there.items() if name not in BY_HAND} == SCRIPT["task_files"]()


@pytest.mark.parametrize("benchmark", SCRIPT["BENCHMARKS"], ids=lambda benchmark: benchmark.group)
def test_names_end_in_the_language_and_its_tag_runs_everything_of_it(benchmark, index):
    group = index[benchmark.group].cfg
    assert len(group["task"]) == len(set(group["task"])) == len(benchmark.languages)
    for name, (config, code) in zip(group["task"], benchmark.languages.items(), strict=True):
        assert name == f"{benchmark.group}_{code}"
        source, _, written = code.rpartition("-")
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", written)
        assert language_of_task(name) == written
        task = index[name].cfg
        kwargs = task["dataset_kwargs"]
        assert task.get("dataset_name") == (config if benchmark.hub_path else None)
        if source:
            assert (kwargs["source_language"], kwargs["target_language"]) == (source, written)
            assert [canonical_language(name) for name in kwargs["hub_names"]] == [source, written]
        else:
            assert kwargs.get("hub_name") == task.get("dataset_name")
            assert kwargs[benchmark.language_key] == code
        assert name in index[f"{benchmark.tag}_{written}"].tags


def test_a_tag_holds_every_task_of_its_language(index):
    expected = {"amplify_" + name + "_zho_Hans" for name in (
        "xcopa", "xwinograd", "include", "include_paper", "include_base", "include_base_paper", "flores_ppl",
        "lss_mlama", "lss_mlama_paper", "lss",
    )}  # fmt: skip
    assert index["amplify_zho_Hans"].tags == expected
    generating = ("lss_langid_zho_Hans", "lss_langid_flores_zho_Hans", "flores_translate_eng_Latn-zho_Hans",
                  "flores_translate_untargeted_eng_Latn-zho_Hans")  # fmt: skip
    assert index["amplify_generate_zho_Hans"].tags == {f"amplify_{name}" for name in generating}


def test_every_task_and_group_has_a_version(index):
    for name, entry in index.items():
        if entry.cfg is not None:
            assert isinstance(entry.cfg["metadata"]["version"], float), name


def test_the_benchmarks_have_the_languages_that_they_have():
    languages = {benchmark.group: list(benchmark.languages.values()) for benchmark in SCRIPT["BENCHMARKS"]}
    assert sorted(languages["amplify_flores_ppl"]) == sorted(PAPER_LANGUAGES)
    assert sorted(languages["amplify_lss_langid"]) == sorted(languages["amplify_lss_langid_flores"])
    assert sorted(languages["amplify_lss_langid"]) == sorted(PAPER_LANGUAGES)
    pairs = [pair.split("-") for pair in languages["amplify_flores_translate"]]
    assert len(pairs) == 34
    assert {frozenset(pair) for pair in pairs} == {frozenset(("eng_Latn", code)) for code in PAPER_LANGUAGES[1:]}
    assert languages["amplify_flores_translate_untargeted"] == languages["amplify_flores_translate"]
    assert len(languages["amplify_xcopa"]) == 11
    assert len(languages["amplify_xwinograd"]) == 6
    assert languages["amplify_lss_mlama"] == languages["amplify_lss_mlama_paper"] == list(CODES.values())
    harness = sorted(path.name for path in (STOCK / "include/default").iterdir() if path.is_dir())
    assert list(SCRIPT["INCLUDE"]) == harness
    assert languages["amplify_include"] == languages["amplify_include_base_paper"]
    assert len(set(languages["amplify_include"])) == 44


def harness_tasks(*folders):
    """Name, and the dataset's config, of the harness's own tasks."""
    for folder in folders:
        for path in (STOCK / folder).rglob("*.yaml"):
            text = yaml.load(path.read_text(encoding="utf-8"), _Loader)
            if not isinstance(text.get("task"), str):
                continue
            base = path.parent / text.get("include", path.name)
            yield text["task"], text.get("dataset_name") or yaml.load(base.read_text(), _Loader)["dataset_name"]


class _Loader(yaml.CSafeLoader):
    pass


_Loader.add_constructor("!function", lambda loader, node: node.value)


def test_the_harness_own_tasks_of_these_families_are_in_the_languages_that_their_data_is_in():
    found = dict(harness_tasks("xcopa", "xwinograd", "include"))
    assert len(found) > 500
    for name, config in found.items():
        assert language_of_task(name) == canonical_language(config), name

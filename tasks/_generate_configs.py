"""Writes the task files of every benchmark, one per language, and the groups; run it after a change.

    python tasks/_generate_configs.py

What the tasks of a benchmark share is in its folder's ``_<benchmark>_yaml``, which is written by hand. A test
keeps the generated files in step with this script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_amplify.data.sources import FLORES_PLUS, flores_plus_code
from lm_eval_amplify.languages import PAPER_LANGUAGES, canonical_language

ENGLISH = "eng_Latn"
XCOPA = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
XWINOGRAD = ("en", "fr", "jp", "pt", "ru", "zh")
MLAMA = ("en", "nl", "id", "ms", "vi", "ja", "zh", "fr", "pt", "ru", "et", "it", "ta", "th", "tr")

# The configs of Include, as the harness has them; a further one, Dutch-Flemish, is empty on the Hub.
INCLUDE = (
    "Albanian", "Arabic", "Armenian", "Azerbaijani", "Basque", "Belarusian", "Bengali", "Bulgarian", "Chinese",
    "Croatian", "Dutch", "Estonian", "Finnish", "French", "Georgian", "German", "Greek", "Hebrew", "Hindi",
    "Hungarian", "Indonesian", "Italian", "Japanese", "Kazakh", "Korean", "Lithuanian", "Malay", "Malayalam",
    "Nepali", "North Macedonian", "Persian", "Polish", "Portuguese", "Russian", "Serbian", "Spanish", "Tagalog",
    "Tamil", "Telugu", "Turkish", "Ukrainian", "Urdu", "Uzbek", "Vietnamese",
)  # fmt: skip

# The harness's Hebrew task writes one domain in its prompt otherwise than the data does.
HEBREW_DESCRIPTION = (
    "The following is multiple-choice question about "
    "{{ 'Driving license' if domain == 'Driving License' else domain }}."
)


class Benchmark(NamedTuple):
    """A group of tasks, one per language, or one per pair of languages to translate between."""

    group: str
    """Its name; that of a task is this and the FLORES-200 code, or the pair."""
    folder: str
    base: str
    """The file that its tasks include."""
    hub_path: str | None
    """None: the data ship with the package."""
    splits: Sequence[str]
    languages: Mapping[str, str]
    """FLORES-200 codes by the dataset's configs; pairs of them, ``eng_Latn-ind_Latn``, by themselves."""
    metrics: Sequence[str]
    """Those that the group gives, weighted by the number of documents as in the harness's own groups."""
    language_key: str = "amplify_language"
    """What the loader calls the language."""
    more_kwargs: Mapping[str, str] = {}
    """Further arguments of the loader."""
    more: Mapping[str, Mapping[str, str]] = {}
    """Further entries of a task's file, by config."""
    tag: str = "amplify"
    """Of the tag that runs everything of a language: this and the code. What generates has one of its own, because it
    takes more time and packages."""


def _by_code(configs: Sequence[str]) -> dict[str, str]:
    return {config: canonical_language(config) for config in configs}


def _include(group: str, dataset: str, base: str, more: Mapping[str, Mapping[str, str]]) -> Benchmark:
    return Benchmark(
        group, "include", base, f"CohereLabs/include-{dataset}-44", ["test"], _by_code(INCLUDE), ["acc"], more=more
    )


def _lss(group: str, wording: str) -> Benchmark:
    return Benchmark(
        group, "lss_mlama", "_lss_mlama_yaml", "inayarhmns/MLAMA-dod-185", ["test"], _by_code(MLAMA),
        ["lss", "shift"], "base_language", {"wording": wording},
    )  # fmt: skip


def _langid(group: str, base: str, hub_path: str | None) -> Benchmark:
    metrics = ["lss_langid", "target_rate", "target_rate_unamplified", "base_rate", "other_rate", "no_language_rate"]
    languages = {code if hub_path is None else flores_plus_code(code): code for code in PAPER_LANGUAGES}
    return Benchmark(
        group, "lss_langid", base, hub_path, ["devtest"], languages, metrics, "base_language", tag="amplify_generate"
    )


def _translate(group: str, base: str) -> Benchmark:
    others = [code for code in PAPER_LANGUAGES if code != ENGLISH]
    pairs = [f"{ENGLISH}-{code}" for code in others] + [f"{code}-{ENGLISH}" for code in others]
    return Benchmark(
        group, "flores_translate", base, FLORES_PLUS, ["devtest"], {pair: pair for pair in pairs},
        ["chrf++", "target_rate"], tag="amplify_generate",
    )  # fmt: skip


_HEBREW = {"Hebrew": {"description": f'"{HEBREW_DESCRIPTION}"'}}
BENCHMARKS = (
    Benchmark(
        "amplify_xcopa", "xcopa", "_xcopa_yaml", "cambridgeltl/xcopa", ["validation", "test"], _by_code(XCOPA), ["acc"]
    ),
    Benchmark(
        "amplify_xwinograd", "xwinograd", "_xwinograd_yaml", "Muennighoff/xwinograd", ["test"], _by_code(XWINOGRAD),
        ["acc"],
    ),
    _include("amplify_include", "lite", "_include_yaml", _HEBREW),
    _include("amplify_include_paper", "lite", "_include_paper_yaml", {}),
    _include("amplify_include_base", "base", "_include_yaml", _HEBREW),
    _include("amplify_include_base_paper", "base", "_include_paper_yaml", {}),
    Benchmark(
        "amplify_flores_ppl", "flores_ppl", "_flores_ppl_yaml", FLORES_PLUS, ["devtest"],
        {flores_plus_code(code): code for code in PAPER_LANGUAGES}, ["bits_per_byte"],
    ),
    _lss("amplify_lss_mlama", "cloze"),
    _lss("amplify_lss_mlama_paper", "paper"),
    Benchmark(
        "amplify_lss", "lss", "_lss_yaml", None, ["test"], {code: code for code in PAPER_LANGUAGES}, ["lss", "shift"],
        "base_language",
    ),
    Benchmark(
        "amplify_babel_ppl", "babel_ppl", "_babel_ppl_yaml", None, ["test"], {code: code for code in PAPER_LANGUAGES},
        ["bits_per_byte"], tag="amplify_babel",
    ),
    _langid("amplify_lss_langid", "_lss_langid_yaml", None),
    _langid("amplify_lss_langid_flores", "_lss_langid_flores_yaml", FLORES_PLUS),
    _translate("amplify_flores_translate", "_flores_translate_yaml"),
    _translate("amplify_flores_translate_untargeted", "_flores_translate_untargeted_yaml"),
)  # fmt: skip


def task_files() -> dict[str, str]:
    """Return the text of every generated file by its path below this folder."""
    files = {}
    for benchmark in BENCHMARKS:
        files[f"{benchmark.folder}/_{benchmark.group}.yaml"] = _group(benchmark)
        for config, code in benchmark.languages.items():
            files[f"{benchmark.folder}/{benchmark.group}_{code}.yaml"] = _task(benchmark, config, code)
    return files


def _task(benchmark: Benchmark, config: str, code: str) -> str:
    kwargs = _data(benchmark, config) | _languages(benchmark, code) | benchmark.more_kwargs
    entries = {
        "include": benchmark.base,
        "task": f"{benchmark.group}_{code}",
        "tag": f"{benchmark.tag}_{code.rpartition('-')[2]}",
        **benchmark.more.get(config, {}),
        **({"dataset_path": benchmark.hub_path, "dataset_name": config} if benchmark.hub_path else {}),
        "dataset_kwargs": "\n" + "\n".join(f"  {name}: {value}" for name, value in kwargs.items()),
    }
    return "".join(f"{name}: {value}\n".replace(": \n", ":\n") for name, value in entries.items())


def _data(benchmark: Benchmark, config: str) -> dict[str, str]:
    """What the loader is told of the data; see ``lm_eval_amplify.data.mirror.configs_of``."""
    if benchmark.hub_path is None:
        return {}
    source, _, target = config.partition("-")
    configs = {"hub_names": f"[{flores_plus_code(source)}, {flores_plus_code(target)}]"} if target else {}
    splits = f"[{', '.join(benchmark.splits)}]"
    return {"hub_path": benchmark.hub_path, **(configs or {"hub_name": config}), "splits": splits}


def _languages(benchmark: Benchmark, code: str) -> dict[str, str]:
    source, _, target = code.partition("-")
    return {"source_language": source, "target_language": target} if target else {benchmark.language_key: code}


def _group(benchmark: Benchmark) -> str:
    members = "\n".join(f"  - {benchmark.group}_{code}" for code in benchmark.languages.values())
    metrics = "\n".join(
        f"  - metric: {metric}\n    aggregation: mean\n    weight_by_size: true" for metric in benchmark.metrics
    )
    return f"group: {benchmark.group}\ntask:\n{members}\naggregate_metric_list:\n{metrics}\nmetadata:\n  version: 1.0\n"


if __name__ == "__main__":
    folder = Path(__file__).parent
    wanted = task_files()
    folders = {benchmark.folder for benchmark in BENCHMARKS}
    for stale in (path for name in folders for path in (folder / name).glob("*_????.yaml")):
        if f"{stale.parent.name}/{stale.name}" not in wanted:
            stale.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")

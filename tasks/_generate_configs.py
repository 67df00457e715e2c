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
    """A group of tasks, one per language."""

    group: str
    """Its name; that of a task is this and the FLORES-200 code."""
    folder: str
    base: str
    """The file that its tasks include."""
    hub_path: str
    splits: Sequence[str]
    languages: Mapping[str, str]
    """FLORES-200 codes by the dataset's configs."""
    metrics: Sequence[str]
    """Those that the group gives, weighted by the number of documents as in the harness's own groups."""
    language_key: str = "amplify_language"
    """What the loader calls the language."""
    more_kwargs: Mapping[str, str] = {}
    """Further arguments of the loader."""
    more: Mapping[str, Mapping[str, str]] = {}
    """Further entries of a task's file, by config."""


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
    kwargs = {
        "hub_path": benchmark.hub_path,
        "hub_name": config,
        "splits": f"[{', '.join(benchmark.splits)}]",
        benchmark.language_key: code,
        **benchmark.more_kwargs,
    }
    entries = {
        "include": benchmark.base,
        "task": f"{benchmark.group}_{code}",
        "tag": f"amplify_{code}",
        **benchmark.more.get(config, {}),
        "dataset_path": benchmark.hub_path,
        "dataset_name": config,
        "dataset_kwargs": "\n" + "\n".join(f"  {name}: {value}" for name, value in kwargs.items()),
    }
    return "".join(f"{name}: {value}\n".replace(": \n", ":\n") for name, value in entries.items())


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

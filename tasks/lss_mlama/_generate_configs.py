"""Writes this folder's task files; run it after a change. A test keeps them in step."""

from __future__ import annotations

from pathlib import Path

HUB_PATH = "inayarhmns/MLAMA-dod-185"

# The dataset's configs and the FLORES-200 codes of their languages.
LANGUAGES = {
    "en": "eng_Latn",
    "nl": "nld_Latn",
    "id": "ind_Latn",
    "ms": "zsm_Latn",
    "vi": "vie_Latn",
    "ja": "jpn_Jpan",
    "zh": "zho_Hans",
    "fr": "fra_Latn",
    "pt": "por_Latn",
    "ru": "rus_Cyrl",
    "et": "est_Latn",
    "it": "ita_Latn",
    "ta": "tam_Taml",
    "th": "tha_Thai",
    "tr": "tur_Latn",
}

# Groups, and the wording of their prompts.
GROUPS = {"amplify_lss_mlama": "cloze", "amplify_lss_mlama_paper": "paper"}


def task_files() -> dict[str, str]:
    """Return the text of every generated file by its name."""
    files = {}
    for group, wording in GROUPS.items():
        tasks = [f"{group}_{code}" for code in LANGUAGES.values()]
        files[f"_{group}.yaml"] = _group(group, tasks)
        for task, (config, code) in zip(tasks, LANGUAGES.items(), strict=True):
            files[f"{task}.yaml"] = _task(task, config, code, wording)
    return files


def _task(task: str, config: str, code: str, wording: str) -> str:
    return f"""include: _lss_mlama_yaml
task: {task}
dataset_name: {config}
dataset_kwargs:
  hub_path: {HUB_PATH}
  hub_name: {config}
  splits: [test]
  base_language: {code}
  wording: {wording}
"""


def _group(group: str, tasks: list[str]) -> str:
    members = "\n".join(f"  - {task}" for task in tasks)
    metrics = "\n".join(
        f"  - metric: {metric}\n    aggregation: mean\n    weight_by_size: true" for metric in ("lss", "shift")
    )
    return f"group: {group}\ntask:\n{members}\naggregate_metric_list:\n{metrics}\nmetadata:\n  version: 1.0\n"


if __name__ == "__main__":
    for name, text in task_files().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")

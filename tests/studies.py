"""A small study of a tiny model: its file, runs of it, and what a folder holds but for times."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from lm_eval_amplify.sweep.prepare import prepare
from lm_eval_amplify.sweep.run import Finished, run_study
from lm_eval_amplify.sweep.study_file import StudyFile, read_study_file

LANGUAGES = ["est_Latn", "ind_Latn", "zho_Hans"]
TIMES = ("date", "total_evaluation_time_seconds")


def content(model: Path, neurons: Path, mirror: Path, **changes) -> dict:
    """LSS and XCOPA under two conditions and a control, a choice under a limit, and XCOPA under what was chosen."""
    whole = {
        "model": {"pretrained": str(model), "batch_size": 4, "device": "cpu"},
        "neurons": str(neurons),
        "languages": LANGUAGES,
        "interventions": [{"statistic": "max", "factor": [0.5, 1]}],
        "controls": {"random": [0], "corpus": "babel", "tokens": 200},
        "tasks": ["amplify_lss", {"task": "amplify_babel_ppl", "limit": 3}],
        "choose": {"metric": "lss", "task": "amplify_lss", "limit": {"bits_per_byte": 100}},
        "then": {"tasks": [{"task": "amplify_xcopa", "amplify": "matrix"}]},
        "metadata": {"data_dir": str(mirror)},
        "limit": 4,
    }
    whole |= changes
    return {key: value for key, value in whole.items() if value is not None}


def write(path: Path, study: dict) -> Path:
    path.write_text(yaml.safe_dump(study, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def read(path: Path, study: dict) -> StudyFile:
    return read_study_file(write(path, study))


def run(file: StudyFile, out: Path) -> Finished:
    return run_study(prepare(file), out, lambda *_: None)


def stored(folder: Path) -> dict[str, object]:
    """Everything in a study's folder by path, but for times and what is made of them."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name == ".lock" or name.startswith("aside"):
            continue
        found[name] = path.read_bytes()
        if path.name == "results.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
        if path.name == "unit.json":
            unit = json.loads(path.read_text())
            del unit["files"]["results.json"]
            found[name] = unit
    return found

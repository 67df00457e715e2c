"""From a study's file to its report, with the real model, harness and browser."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_report_page import Page

STUDY = """
model: {pretrained: babel, device: cpu, batch_size: 64}
neurons: babel
languages: [ind_Latn, jpn_Jpan, tam_Taml]
interventions: {operation: set, statistic: max, factor: [0.5, 1]}
controls: {random: [0]}
limit: 6
tasks: [amplify_lss]
choose: {metric: lss, task: amplify_lss}
then:
  tasks:
    - {task: amplify_babel_ppl, amplify: matrix}
    - {task: amplify_lss_langid, limit: 2}
"""
LANGUAGES = ("ind_Latn", "jpn_Jpan", "tam_Taml")


def command(*arguments: object) -> str:
    run = [sys.executable, "-m", "lm_eval_amplify.cli", *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    (folder / "toy.yaml").write_text(STUDY)
    command("sweep", folder / "toy.yaml", "--out", folder / "toy")
    printed = command("report", folder / "toy")
    assert "日本語" in printed
    return folder / "toy"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "report" / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def lss_from_samples(folder: Path, condition: str, target: str) -> float:
    """Of odd documents, the mean over the base languages."""
    means = []
    for base in LANGUAGES:
        path = folder / "sweep" / "amplify_lss" / condition / f"samples_amplify_lss_{base}.jsonl"
        samples = map(json.loads, path.read_text().splitlines())
        values = [sample[f"lss_{target}"] for sample in samples if base != target and sample["doc_id"] % 2]
        known = [value for value in values if not math.isnan(value)]
        if known:
            means.append(sum(known) / len(known))
    return sum(means) / len(means)


def test_the_report_of_a_real_study_has_what_its_samples_say(folder):
    found = {(row["language"], float(row["factor"])): row for row in rows(folder, "lss-by-factor")}
    assert found.keys() == {(language, factor) for language in LANGUAGES for factor in (0.5, 1.0)}
    for (language, factor), row in found.items():
        own, control = (f"set-max-{factor}", f"set-max-{factor}.random-0")
        assert float(row["lss"]) == pytest.approx(lss_from_samples(folder, own, language))
        assert float(row["random_mean"]) == pytest.approx(lss_from_samples(folder, control, language))


def test_the_report_of_a_real_study_has_a_section_for_each_of_its_tasks(folder):
    perplexity = rows(folder, "perplexity")
    assert [(row["neurons_of"], row["texts_in"]) for row in perplexity] == [
        (one, other) for one in LANGUAGES for other in LANGUAGES
    ]
    results = json.loads((folder / "then" / "amplify_babel_ppl" / "unamplified" / "results.json").read_text())
    for row in perplexity:
        reported = results["results"][f"amplify_babel_ppl_{row['texts_in']}"]["bits_per_byte,none"]
        assert float(row["unamplified"]) == reported
    written = rows(folder, "written")
    assert {row["target"] for row in written} == set(LANGUAGES)
    for row in written:
        assert sum(int(row[f"{part}_texts"]) for part in ("target", "base", "other", "none")) == 2
    neurons = rows(folder, "neurons-by-layer")
    assert [row["neurons"] for row in neurons] == ["137", "94", "111"]


def test_the_page_of_a_real_study_has_its_languages_names_and_loads_nothing(folder):
    page = (folder / "report" / "index.html").read_text()
    assert all(name in page for name in ("日本語", "தமிழ்", "bahasa Indonesia"))
    parsed = Page(page)
    assert parsed.is_closed
    assert "://" not in page
    files = [one for one in parsed.references if not one.startswith(("#", "data:"))]
    assert all((folder / "report" / one).is_file() for one in files)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_finds_no_error_in_the_page_and_asks_for_nothing(folder, tmp_path):
    log = tmp_path / "net.json"
    quiet = "no-first-run disable-background-networking disable-component-update disable-sync disable-extensions"
    options = [f"--{name}" for name in f"headless no-sandbox disable-gpu {quiet} enable-logging=stderr".split()]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--virtual-time-budget=2000"]
    page = (folder / "report" / "index.html").resolve().as_uri()
    command = ["chromium", *options, f"--screenshot={tmp_path / 'page.png'}", "--window-size=1400,3000", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (tmp_path / "page.png").is_file(), done.stderr
    assert "CONSOLE" not in done.stderr
    asked = set(re.findall(r'"url":"(http[^"]*)"', log.read_text()))
    # The browser's own, with which it looks for accounts and the time.
    assert {url for url in asked if ".google.com/" not in url} == set()

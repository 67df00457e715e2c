"""``lm-eval-amplify sweep`` as a user types it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import studies
from typer.testing import CliRunner

from lm_eval_amplify import cli


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "lm_eval_amplify.cli", "sweep", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path, saved, neuron_path, mirror):
    content = studies.content(saved("qwen2"), neuron_path("qwen2"), mirror, controls=None, then=None)
    return studies.write(tmp_path / "small.yaml", content)


def test_a_mistake_is_one_line_and_exit_status_2(file, tmp_path):
    file.write_text(file.read_text().replace("statistic: max", "statistic: maxx"))
    done = command(file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "small.yaml, line 1" in done.stderr
    assert "no statistic 'maxx' (did you mean 'max'?)" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_says_what_it_chose_and_what_to_do_next(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["sweep", str(file), "--set", "limit=2"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "9 units ran: results/small\n" in done.output
    assert "  ind_Latn: set max x " in done.output
    assert done.stdout.endswith("next: lm-eval-amplify report results/small\n")
    again = CliRunner().invoke(cli.app, ["sweep", str(file), "--set", "limit=2"], catch_exceptions=False)
    assert "0 units ran, 9 were there: results/small\n" in again.output


def test_a_dry_run_writes_nothing(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["sweep", str(file), "--dry-run"], catch_exceptions=False)
    assert "2 conditions: set max x 0.5; set max x 1\n" in done.output
    # LSS: 3 bases x 4 facts x 2 targets x 2 objects, twice, and 3 objects of each fact unamplified.
    assert "amplify_lss                               2        132" in done.output
    assert not (tmp_path / "results").exists()


def test_the_limit_is_named_where_nothing_stays_under_it(file, tmp_path):
    changes = ["--set", "choose.limit.bits_per_byte=0.001", "--set", "limit=2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, ["sweep", str(file), *changes], catch_exceptions=False)
    assert done.exit_code == 0
    assert "  ind_Latn: nothing chosen\n" in done.output

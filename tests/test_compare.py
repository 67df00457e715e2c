"""`lm-eval-amplify compare`: verdicts, exit statuses, what it writes, and what it cannot compare."""

from __future__ import annotations

import csv
import json
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from result_files import REAL, share, write_results

from lm_eval_amplify import cli
from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.report.comparing import Rules, compare
from lm_eval_amplify.report.tolerance import Tolerance


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line; returns exit status, stdout, stderr."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run_command


def sides(tmp_path, old, new, *, of_old=None, of_new=None):
    paths = tmp_path / "old", tmp_path / "new"
    for path, values, options in zip(paths, (old, new), (of_old, of_new), strict=True):
        write_results(path, values, **(options or {}))
    return paths


def verdicts(comparison):
    return {one.row.name: one.verdict for one in comparison.compared}


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_a_loss_beyond_chance_is_a_regression_and_status_1(run, tmp_path):
    status, out, _ = run("compare", *sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(60, 100)}))
    assert status == 1
    assert "failed: 1 regression" in out
    assert "mcnemar" in out


def test_a_gain_is_better_and_status_0(run, tmp_path):
    status, out, _ = run("compare", *sides(tmp_path, {"acc": share(60, 100)}, {"acc": share(80, 100)}))
    assert (status, "passed: 1 better" in out) == (0, True)


def test_of_a_perplexity_more_is_a_regression(tmp_path):
    old = [float(x) for x in np.random.default_rng(0).normal(3, 1, 50)]
    new = [x + 0.5 for x in old]
    paths = sides(tmp_path, {"loss": old}, {"loss": new}, of_old={"higher_is_better": False},
                  of_new={"higher_is_better": False})  # fmt: skip
    assert verdicts(compare(*paths)) == {"loss": "regression"}
    assert verdicts(compare(*reversed(paths))) == {"loss": "better"}


def test_what_chance_can_make_is_unclear_and_passes(run, tmp_path):
    old, new = share(50, 100), [0.0, *share(50, 100)[1:-1], 1.0]
    status, out, _ = run("compare", *sides(tmp_path, {"acc": [*old, 1.0, 1.0]}, {"acc": [*new, 0.0, 0.0]}))
    assert (status, "1 unclear" in out) == (0, True)


def test_a_loss_within_the_tolerance_is_the_same(tmp_path):
    old = np.linspace(0, 1, 50)
    paths = sides(tmp_path, {"score": old.tolist()}, {"score": (old - 0.009).tolist()})
    assert verdicts(compare(*paths)) == {"score": "same"}
    assert verdicts(compare(*paths, Rules(tolerance=Tolerance.parse(["0.005"])))) == {"score": "regression"}


@pytest.mark.parametrize(
    ("texts", "verdict"),
    [(["0.2"], "same"), (["10%"], "same"), (["0.2", "score=1%"], "regression"), (["sc*=0.2"], "same")],
)
def test_a_tolerance_is_absolute_or_relative_for_all_metrics_or_for_some(tmp_path, texts, verdict):
    old = np.linspace(1, 3, 50)
    paths = sides(tmp_path, {"score": old.tolist()}, {"score": (old - 0.15).tolist()})
    assert verdicts(compare(*paths, Rules(tolerance=Tolerance.parse(texts)))) == {"score": verdict}


def test_a_difference_of_just_the_tolerance_is_within_it(tmp_path):
    paths = sides(tmp_path, {"acc": share(51, 100)}, {"acc": share(50, 100)})
    assert verdicts(compare(*paths, Rules(fail_on="change"))) == {"acc": "same"}


def test_fail_on_change_needs_no_proof_and_takes_either_direction(run, tmp_path):
    paths = sides(tmp_path, {"acc": share(50, 100)}, {"acc": share(52, 100)})
    assert run("compare", *paths)[0] == 0
    assert run("compare", *paths, "--fail-on", "change")[0] == 1
    assert run("compare", *paths, "--fail-on", "change", "--tolerance", "0.02")[0] == 0


def test_what_has_no_direction_is_changed_and_passes(tmp_path):
    options = {"higher_is_better": None}
    paths = sides(tmp_path, {"length": share(90, 100)}, {"length": share(20, 100)}, of_old=options, of_new=options)
    comparison = compare(*paths)
    assert (verdicts(comparison), comparison.exit_status) == ({"length": "changed"}, 0)


def test_a_number_that_became_none_is_a_regression(tmp_path):
    paths = sides(tmp_path, {"acc": share(1, 2)}, {"acc": share(1, 2)},
                  of_new={"results": {"toy": {"acc,none": float("nan")}}})  # fmt: skip
    comparison = compare(*paths)
    assert (verdicts(comparison), comparison.exit_status) == ({"acc": "regression"}, 1)
    assert compare(*reversed(paths)).exit_status == 3


def test_alpha_is_for_the_whole_comparison_unless_it_is_for_each_metric(tmp_path):
    same = {f"other{i}": share(50, 100) for i in range(9)}
    old = {"acc": share(50, 100)} | same
    new = {"acc": [0.0] * 7 + share(43, 93)} | same  # 7 lost, none won: p = 2 / 128
    paths = sides(tmp_path, old, new)
    assert verdicts(compare(*paths))["acc"] == "unclear"
    assert verdicts(compare(*paths, Rules(correct=False)))["acc"] == "regression"
    assert verdicts(compare(*paths, metrics=["acc"]))["acc"] == "regression"


def test_among_many_metrics_without_a_change_few_comparisons_fail(tmp_path):
    failed = {True: 0, False: 0}
    for seed in range(10):
        random = np.random.default_rng(seed)
        old, new = ({f"m{i}": random.normal(0, 1, 12).tolist() for i in range(15)} for _ in range(2))
        paths = sides(tmp_path / str(seed), old, new)
        for correct in failed:
            failed[correct] += compare(*paths, Rules(correct=correct)).exit_status == 1
    assert failed[True] <= 1  # at alpha 0.05 half a one is expected, in either direction
    assert failed[False] > 1


# Pairing -------------------------------------------------------------------------------------------------------------


def test_pairing_finds_what_standard_errors_cannot(tmp_path):
    old = np.random.default_rng(1).normal(0, 1, 100)
    values = {"score": old.tolist()}, {"score": (old - 0.1).tolist()}
    options = {"stderr": 0.1}
    paths = sides(tmp_path, *values, of_old=options, of_new=options)
    assert verdicts(compare(*paths)) == {"score": "regression"}
    comparison = compare(*paths, Rules(test="unpaired"))
    assert verdicts(comparison) == {"score": "unclear"}
    assert comparison.compared[0].difference.method == "stderr"


def test_without_samples_the_standard_errors_decide_and_a_paired_test_says_what_is_missing(run, tmp_path):
    options = {"has_samples": False, "stderr": 0.03}
    paths = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(60, 100)}, of_new=options, of_old={"stderr": 0.03})
    assert compare(*paths).compared[0].difference.method == "stderr"
    assert compare(*paths).exit_status == 1
    status, _, err = run("compare", *paths, "--test", "paired")
    assert status == 3
    assert err.strip() == (
        "not comparable: toy: a paired test was asked for: the new results have no samples, which --log_samples writes"
    )


def test_without_samples_and_standard_errors_a_loss_is_not_comparable(run, tmp_path):
    options = {"has_samples": False}
    paths = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(60, 100)}, of_old=options, of_new=options)
    status, _, err = run("compare", *paths)
    assert (status, "--log_samples" in err) == (3, True)
    assert compare(*reversed(paths)).exit_status == 0


def test_other_documents_are_not_paired(tmp_path):
    paths = sides(tmp_path, {"acc": share(8, 10)}, {"acc": share(8, 10)})
    samples = next(paths[1].glob("samples_*"))
    samples.write_text(samples.read_text().replace("toy3", "another"))
    one = compare(*paths, Rules(test="paired")).compared[0]
    assert (one.verdict, "the documents differ" in one.note) == ("not comparable", True)


def test_the_order_of_samples_does_not_matter(tmp_path):
    paths = sides(tmp_path, {"acc": share(8, 10)}, {"acc": share(8, 10)})
    samples = next(paths[1].glob("samples_*"))
    samples.write_text("".join(reversed(samples.read_text().splitlines(keepends=True))))
    difference = compare(*paths).compared[0].difference
    assert (difference.method, difference.low, difference.high) == ("mcnemar", 0.0, 0.0)


def test_real_results_are_paired_across_versions_of_the_harness_groups_too():
    comparison = compare(REAL / "0.4.8" / "gpt2-seed0", REAL / "0.4.13" / "gpt2-seed0")
    assert comparison.exit_status == 0
    assert set(verdicts(comparison).values()) == {"same"}
    assert len(comparison.compared) == 14
    assert all(one.difference.method in ("mcnemar", "paired") for one in comparison.compared)
    assert comparison.settings["lm_eval_version"] == ("", "0.4.13")


def test_real_results_of_another_model_are_told_by_its_documents():
    comparison = compare(REAL / "0.4.8" / "gpt2-seed0", REAL / "0.4.8" / "gpt2-seed1", Rules(correct=False, alpha=0.2))
    found = verdicts(comparison)
    assert found["bits_per_byte"] == found["byte_perplexity"] == "regression"
    assert found["acc_norm"] in ("unclear", "same")


# What is not comparable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"), [({"version": 2}, "version 2"), ({"shots": 5}, "5-shot"), ({"in_all": 200}, "of 200 documents")]
)
def test_runs_that_differ_in_how_are_not_compared(run, tmp_path, change, says):
    paths = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(60, 100)}, of_new=change)
    status, _, err = run("compare", *paths)
    assert (status, says in err) == (3, True)


def test_results_of_different_tasks_say_which(run, tmp_path):
    paths = sides(tmp_path, {"acc": share(1, 2)}, {"acc": share(1, 2)}, of_new={"task": "another"})
    status, out, err = run("compare", *paths)
    assert status == 3
    assert f"nothing to compare: {paths[0]} has toy; {paths[1]} has another" in err
    assert "Traceback" not in out + err


def test_a_task_that_went_missing_does_not_pass_and_a_new_one_does(tmp_path):
    old, new = sides(tmp_path, {"acc": share(8, 10)}, {"acc": share(8, 10)})
    write_results(old / "more", {"acc": share(8, 10)}, task="another")
    assert (compare(old, new).exit_status, compare(new, old).exit_status) == (3, 0)
    assert compare(old, new, tasks=["toy"]).exit_status == 0


def test_a_regression_outweighs_what_is_not_comparable(tmp_path):
    old, new = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(60, 100)})
    write_results(old / "more", {"acc": share(8, 10)}, task="another")
    assert compare(old, new).exit_status == 1


def test_several_conditions_are_matched_and_one_is_compared_with_whatever_there_is(tmp_path):
    for side, right in (("old", 80), ("new", 60)):
        for factor, number in ((1, right), (2, 50)):
            arguments = f"pretrained=toy,factor={factor}"
            write_results(tmp_path / side / str(factor), {"acc": share(number, 100)}, model_args=arguments)
    comparison = compare(tmp_path / "old", tmp_path / "new")
    assert {one.new.condition: one.verdict for one in comparison.compared} == {
        "factor=1": "regression",
        "factor=2": "same",
    }
    single = compare(tmp_path / "old" / "1", tmp_path / "new" / "2")
    assert verdicts(single) == {"acc": "regression"}
    assert single.settings["model_args.factor"] == ("1", "2")


def test_of_runs_of_the_same_the_newest_counts(run, tmp_path):
    old, new = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(80, 100)})
    write_results(new / "run of before", {"acc": share(10, 100)}, date=1.0)
    status, _, err = run("compare", old, new)
    assert status == 0
    assert f"{new / 'run of before'}" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tolerance", "much"), "tolerance 'much': expected a number"),
        (("--tolerance", "-1"), "tolerance '-1'"),
        (("--out", "x.pdf"), "ends in none of .md, .html, .csv, .xml"),
        (("--out", "missing/x.md"), "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, tmp_path, monkeypatch, options, says):
    paths = sides(tmp_path, {"acc": share(1, 2)}, {"acc": share(1, 2)})
    monkeypatch.chdir(tmp_path)
    status, out, err = run("compare", *paths, *options)
    assert status == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_a_damaged_file_is_one_line_and_status_2(run, tmp_path):
    old, new = sides(tmp_path, {"acc": share(1, 4)}, {"acc": share(1, 4)})
    samples = next(new.glob("samples_*"))
    samples.write_text(samples.read_text()[:-20])
    status, _, err = run("compare", old, new)
    assert (status, str(samples) in err, "half-written" in err) == (2, True, True)
    with pytest.raises(ResultsError, match="no such file"):
        compare(old, tmp_path / "nowhere")


# What it writes ------------------------------------------------------------------------------------------------------


def test_it_writes_junit_markdown_html_and_csv(run, tmp_path):
    old = {"acc": share(80, 100), "f1": share(50, 100)}
    new = {"acc": share(60, 100), "f1": share(50, 100)}
    paths = sides(tmp_path, old, new, of_new={"model_args": "pretrained=<b>|toy"})
    write_results(paths[0] / "more", {"acc": share(8, 10)}, task="another")
    outs = [tmp_path / f"out.{suffix}" for suffix in ("xml", "md", "html", "csv")]
    assert run("compare", *paths, *(part for out in outs for part in ("--out", out)))[0] == 1
    xml, markdown, html, table = (out.read_text() for out in outs)
    root = ET.fromstring(xml.encode())
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert cases["toy", "acc,none"].find("failure").get("message").startswith("regression: 0.8000 -> 0.6000")
    assert cases["another", "acc,none"].find("error") is not None
    assert cases["toy", "f1,none"].find("failure") is None
    assert "| toy | acc ↑ | 0.8000 | 0.6000 | -0.2000 |" in markdown
    assert "f1" not in markdown  # the same
    assert "f1" in html
    assert "&lt;b&gt;|toy" in html
    assert "<b>" not in html
    assert "&lt;b>\\|toy" in markdown
    found = {(row["task"], row["metric"]): row for row in csv.DictReader(table.splitlines())}
    assert found["toy", "acc"]["verdict"] == "regression"
    assert float(found["toy", "acc"]["p"]) < 1e-5
    assert found["another", "acc"]["new"] == ""


def test_the_same_results_make_the_same_files(run, tmp_path):
    paths = sides(tmp_path, {"acc": share(80, 100)}, {"acc": share(70, 100)})
    texts = []
    for name in ("a.csv", "b.csv"):
        run("compare", *paths, "--out", tmp_path / name)
        texts.append((tmp_path / name).read_bytes())
    assert texts[0] == texts[1]


def test_what_comes_out_is_valid_where_results_hold_control_characters(run, tmp_path):
    metrics = {"acc\u0007,none": 0.5, "acc\u0007_stderr,none": 0.1}
    options = {"results": {"toy": metrics}, "has_samples": False}
    paths = sides(tmp_path, {"acc": share(1, 2)}, {"acc": share(1, 2)}, of_old=options, of_new=options)
    out = tmp_path / "o.xml"
    assert run("compare", *paths, "--out", out)[0] == 0
    assert ET.fromstring(out.read_bytes()).get("tests") == "1"
    assert json.loads(json.dumps(out.read_text()))

"""`lm-eval-amplify leaderboard`: who is ranked, by what, and who is not ranked together."""

from __future__ import annotations

import csv
import re
import sys

import pytest
from result_files import REAL, share, write_results

from lm_eval_amplify import cli
from lm_eval_amplify.errors import ResultsError
from lm_eval_amplify.report.leaderboard import boards_of, read_rows
from lm_eval_amplify.results.rows import COLUMNS


@pytest.fixture
def run(monkeypatch, capsys):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", "leaderboard", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run_command


def ranks(board):
    return [(place.rank, place.entrant.model) for place in board.places]


def entry(folder, model, values, **options):
    return write_results(folder / model, values, model_args=f"pretrained={model}", **options)


def test_the_best_is_first_and_equal_ones_share_a_rank(tmp_path):
    for model, right in (("c", 7), ("a", 9), ("b", 9), ("d", 3)):
        entry(tmp_path, model, {"acc": share(right, 10)})
    (board,) = boards_of(read_rows([tmp_path]).rows)
    assert ranks(board) == [(1, "a"), (1, "b"), (3, "c"), (4, "d")]


def test_of_a_perplexity_the_least_is_first_and_what_is_no_number_last(tmp_path):
    for model, loss in (("a", 5.0), ("b", float("nan")), ("c", 2.0)):
        entry(tmp_path, model, {"perplexity": [loss, loss]}, higher_is_better=False)
    (board,) = boards_of(read_rows([tmp_path]).rows)
    assert ranks(board) == [(1, "c"), (2, "a"), (None, "b")]


@pytest.mark.parametrize("change", [{"version": 2}, {"shots": 5}, {"in_all": 20}])
def test_runs_that_differ_in_how_are_not_ranked_together(run, tmp_path, change):
    entry(tmp_path, "a", {"acc": share(9, 10)})
    entry(tmp_path, "b", {"acc": share(8, 10)}, **change)
    boards = boards_of(read_rows([tmp_path]).rows)
    assert [len(board.places) for board in boards] == [1, 1]
    assert "not comparable, run differently" in " ".join(run(tmp_path)[1].split())


def test_conditions_of_one_model_are_ranked_each(tmp_path):
    for factor, right in ((1, 5), (2, 8)):
        arguments = f"pretrained=toy,factor={factor}"
        write_results(tmp_path / str(factor), {"acc": share(right, 10)}, model_args=arguments)
    (board,) = boards_of(read_rows([tmp_path]).rows)
    assert [(place.rank, place.entrant.condition) for place in board.places] == [(1, "factor=2"), (2, "factor=1")]


def test_of_runs_of_the_same_the_newest_counts(tmp_path):
    entry(tmp_path / "1", "a", {"acc": share(9, 10)}, date=2e9)
    entry(tmp_path / "2", "a", {"acc": share(1, 10)}, date=1e9)
    (board,) = boards_of(read_rows([tmp_path]).rows)
    assert board.places[0].rows["acc"].value == 0.9


def test_stock_results_of_two_versions_have_a_table_for_each_group():
    boards = boards_of(read_rows([REAL]).rows)
    assert [board.group for board in boards] == [
        "toy_choice",
        "toy_choice_even",
        "toy_last_word",
        "toy_rolling",
        "toy_write",
    ]
    assert {len(board.places) for board in boards} == {2}
    rolling = next(board for board in boards if board.group == "toy_rolling")
    assert ranks(rolling) == [(1, "gpt2-seed0"), (2, "gpt2-seed1")]
    assert rolling.metrics == ["word_perplexity", "byte_perplexity", "bits_per_byte"]


def test_tasks_and_the_ranking_metric_can_be_chosen(tmp_path):
    for model, right, less in (("a", 9, 2.0), ("b", 5, 1.0)):
        entry(tmp_path, model, {"acc": share(right, 10), "f1": [less / 10] * 10})
    rows = read_rows([tmp_path]).rows
    assert ranks(boards_of(rows, metric="f1")[0])[0] == (1, "a")
    assert boards_of(rows, metric="f1")[0].metrics == ["f1", "acc"]
    with pytest.raises(ResultsError, match="no task has the metric 'bleu': there are acc, f1"):
        boards_of(rows, metric="bleu")
    with pytest.raises(ResultsError, match="no results of mmlu: there are toy"):
        boards_of(rows, tasks=["mmlu"])


def test_metrics_of_single_languages_do_not_crowd_the_table(tmp_path):
    values = {"lss_ind_Latn": share(5, 10), "lss": share(5, 10), "shift": share(2, 10)}
    entry(tmp_path, "a", values)
    assert boards_of(read_rows([tmp_path]).rows)[0].metrics == ["lss", "shift"]


def test_a_damaged_file_is_named_and_the_others_are_ranked(run, tmp_path):
    entry(tmp_path, "a", {"acc": share(9, 10)})
    broken = entry(tmp_path, "b", {"acc": share(9, 10)})
    broken.write_text(broken.read_text()[:40])
    status, out, err = run(tmp_path)
    assert status == 0
    assert f"left out: {broken}: damaged or half-written" in err
    assert "│ a " in out
    status, out, err = run(broken)
    assert (status, out) == (2, "")
    assert err.startswith(f"lm-eval-amplify: error: {broken}")


def test_it_writes_markdown_csv_with_every_row_and_a_page_that_loads_nothing(run, tmp_path):
    entry(tmp_path, "a", {"acc": share(9, 10), "lss_ind_Latn": share(1, 10)})
    entry(tmp_path, "b<script>", {"acc": share(8, 10), "lss_ind_Latn": share(1, 10)})
    outs = [tmp_path / f"board.{suffix}" for suffix in ("md", "csv", "html")]
    assert run(tmp_path, *(part for out in outs for part in ("--out", out)))[0] == 0
    markdown, table, html = (out.read_text() for out in outs)
    assert "| 1 | a |  | 0.9000 | model:a |" in markdown
    rows = list(csv.DictReader(table.splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 4
    assert {row["schema"] for row in rows} == {"1"}
    assert "<td>b&lt;script&gt;</td>" in html
    assert not re.search(r"<script|https?:|@import|url\((?!data:)|<link(?! rel=\"icon\" href=\"data:)|src=", html)

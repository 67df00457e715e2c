"""`lm-eval-amplify report`: a page that loads nothing, says what is missing, and is the same for the same study."""

from __future__ import annotations

import csv
import re
import sys
import warnings
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from study_folders import UNAMPLIFIED, Made, choice, chosen, treatment

from lm_eval_amplify import cli
from lm_eval_amplify.report.study import drawing
from lm_eval_amplify.report.study.writing import make_report
from lm_eval_amplify.sweep.store import Unit, read_study

LANGUAGES = ["jpn_Jpan", "tha_Thai", "tam_Taml"]
OWN_NAMES = ("日本語", "ไทย", "தமிழ்")


def full_study(path, **entries):
    """All that a report has a section for; nothing is chosen for Tamil."""
    made = Made(path, LANGUAGES)
    for factor in (0.5, 1, 2):
        for one in (treatment(factor), treatment(factor).with_random_neurons(0)):
            made.put_lss(one, {base: {t: [1, 0, 1, 1] for t in LANGUAGES if t != base} for base in LANGUAGES})
    for layer in ("0", "1"):
        made.put_lss(treatment(1, layers=layer), {"eng_Latn": {t: [1, 0, 0, 1] for t in LANGUAGES}})
    languages = {}
    for target in LANGUAGES[:2]:
        one = treatment(1).of_language(target)
        languages[target] = choice(one, 0.9, 0.8, (0.5, 0.4, 0.6), 1.1)
        made.put_accuracy(one, {t: [1, 0, 0, 1] for t in LANGUAGES})
        made.put_perplexity(one, dict.fromkeys(LANGUAGES, 2.0))
        made.put_written(one, "eng_Latn", {target: [(target, "eng_Latn"), ("none", "none")]})
    languages[LANGUAGES[2]] = choice(None)
    made.put_accuracy(UNAMPLIFIED, {t: [1, 1, 0, 1] for t in LANGUAGES})
    made.put_perplexity(UNAMPLIFIED, dict.fromkeys(LANGUAGES, 1.0))
    made.put_neurons({t: [3, 0, 5] for t in LANGUAGES})
    return made.record(chosen(languages), **entries)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return full_study(tmp_path_factory.mktemp("full") / "study")


@pytest.fixture(scope="module")
def report(study):
    return make_report(read_study(study))


@pytest.fixture(scope="module")
def page(report):
    return report.files["index.html"].decode()


class Page(HTMLParser):
    """What a page refers to, and how it is built."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.unlabelled = 0
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        own = dict(attributes)
        self.references += [
            own[name] for name in ("src", "href", "xlink:href", "srcset", "data", "action") if name in own
        ]
        self.references += re.findall(r"url\(([^)]*)\)", own.get("style") or "")
        self.references += [value[4:-1] for value in own.values() if value and value.startswith("url(")]
        self.unlabelled += tag == "svg" and not (own.get("aria-label") and own.get("role") == "img")
        if "id" in own:
            self.ids.append(own["id"])
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    @property
    def is_closed(self) -> bool:
        return not self.open


@pytest.fixture
def run(monkeypatch, capsys):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run_command


def test_the_page_loads_nothing_and_runs_nothing(page, report):
    parsed = Page(page)
    assert parsed.is_closed
    assert not {"script", "iframe", "object", "embed", "img"} & set(parsed.tags)
    assert set(parsed.tags) & {"link"} == {"link"}  # the icon, which else a browser asks a server for
    others = [one for one in parsed.references if not one.startswith("#") and one != "data:,"]
    assert others
    assert all(one in report.files for one in others)
    assert "://" not in page
    assert "@import" not in page


def test_references_within_the_page_lead_somewhere_and_ids_are_unique(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {one[1:] for one in parsed.references if one.startswith("#")} <= set(parsed.ids)


def test_each_figure_says_what_it_shows_and_is_there_as_svg_and_png(page, report):
    assert Page(page).unlabelled == 0
    figures = {name.rpartition(".")[0] for name in report.files if name.startswith("figures/")}
    names = "chosen lss-by-factor lss-by-layer lss-pairs change-amplify_xcopa change-amplify_xcopa-matrix perplexity"
    assert figures == {f"figures/{name}" for name in f"{names} written neurons-by-layer".split()}
    for name in figures:
        root = ET.fromstring(report.files[f"{name}.svg"])
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not root.findall(".//{http://www.w3.org/2000/svg}metadata")
        assert report.files[f"{name}.png"].startswith(b"\x89PNG")


def test_each_table_is_there_as_csv(report):
    tables = [name for name in report.files if name.endswith(".csv")]
    assert len(tables) >= 8
    for name in tables:
        rows = list(csv.reader(report.files[name].decode().splitlines()))
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}


def test_languages_are_called_by_their_own_names_as_text(page, report):
    for own in OWN_NAMES:
        assert own in page
        assert own in report.files["figures/chosen.svg"].decode()
    assert "<text" in page


def test_the_same_study_gives_the_same_bytes(study, report):
    assert make_report(read_study(study)) == report


def test_no_date_and_no_program_is_in_a_figure(report):
    for name, content in report.files.items():
        if name.startswith("figures/"):
            assert b"atplotlib" not in content.replace(b'id="matplotlib.axis', b"")
            assert b"dc:date" not in content


def test_letters_that_no_font_has_are_left_out_of_the_png_and_kept_in_the_svg(monkeypatch):
    seen = []

    def make(names):
        made = drawing.figure(2, 1)
        seen.append(names("jpn_Jpan"))
        made.text(0.1, 0.5, seen[-1])
        return made

    only = [entry for entry in drawing._installed() if entry[0] == "DejaVu Sans"]
    monkeypatch.setattr(drawing, "_installed", lambda: only)
    drawing.fonts_for.cache_clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            drawn = drawing.draw(make, ["jpn_Jpan"])
    finally:
        drawing.fonts_for.cache_clear()
    assert sorted(seen) == ["Japanese", "Japanese 日本語"]
    assert "日本語" in drawn.svg.decode()


def test_letters_that_a_font_has_are_drawn_into_the_png():
    assert drawing.fonts_for("русский") == ("DejaVu Sans",)
    assert drawing.name_that_can_be_drawn("rus_Cyrl") == "Russian русский"
    assert drawing.fonts_for("\U0010ffff") is None


def test_an_unfinished_study_says_which_units_are_missing(run, tmp_path):
    made = Made(tmp_path / "study", ["ind_Latn"])
    made.put_lss(treatment(), {"est_Latn": {"ind_Latn": [1, 0]}})
    missing = Unit("then", "amplify_xcopa", treatment(2).of_language("ind_Latn").with_random_neurons(3))
    path = made.record(missing=[missing])
    code, _, err = run(path)
    assert code == 0
    assert "1 unit of results is missing" in err
    page = (path / "report" / "index.html").read_text()
    assert "Not finished: 1 unit of results missing" in page
    assert "then, amplify_xcopa, set max x 2, neurons of Indonesian bahasa Indonesia, random neurons, seed 3" in page


def test_what_was_not_measured_is_a_line_and_no_section(tmp_path):
    made = Made(tmp_path / "study", ["ind_Latn"])
    made.put_accuracy(UNAMPLIFIED, {"ind_Latn": [1, 1]}, stage="sweep")
    made.put_accuracy(treatment(), {"ind_Latn": [1, 0]}, stage="sweep")
    page = make_report(read_study(made.record())).files["index.html"].decode()
    for line in ("What was chosen: the study chooses nothing.", "LSS: no task", "Perplexity by language: no task"):
        assert f"<li>{line}" in page
    assert 'id="change-amplify_xcopa"' in page
    assert 'id="lss' not in page


def test_a_study_with_nothing_finished_still_has_a_report(run, tmp_path):
    (tmp_path / "study").mkdir()
    made = Made(tmp_path / "study", ["ind_Latn"])
    path = made.record(missing=[Unit("sweep", "amplify_lss", treatment())], tasks={"amplify_lss": {"leaves": {}}})
    code, out, _ = run(path)
    assert code == 0
    assert "index.html" in out


def test_names_that_look_like_html_stay_text(tmp_path):
    made = Made(tmp_path / "study", ["ind_Latn"])
    made.put_accuracy(UNAMPLIFIED, {"ind_Latn": [1, 1]})
    path = made.record(name="<script>alert(1)</script>", model='"><img src=x>')
    page = make_report(read_study(path)).files["index.html"].decode()
    assert not {"script", "img"} & set(Page(page).tags)
    assert "&lt;script&gt;" in page


def test_the_command_writes_the_report_and_prints_what_was_chosen(run, study, tmp_path):
    code, out, err = run(study, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert str(tmp_path / "out" / "index.html") in out.replace("\n", "")
    for line in (
        r"日本語 +│ set max x 1 +│ +0.900 │ 0.800 │ 0.500 \(0.400 to 0.600\) │ +1.100",
        "nothing chosen",
    ):
        assert re.search(line, out)
    assert (tmp_path / "out" / "figures" / "chosen.png").is_file()
    assert (tmp_path / "out" / "tables" / "chosen.csv").is_file()


def test_the_report_lies_in_the_studys_folder_and_the_study_can_be_read_again(run, tmp_path):
    made = Made(tmp_path / "study", ["ind_Latn"])
    made.put_accuracy(UNAMPLIFIED, {"ind_Latn": [1, 1]})
    path = made.record()
    before = read_study(path)
    assert run(path)[0] == 0
    after = read_study(path)
    assert (path / "report" / "index.html").is_file()
    assert (after.units.keys(), after.missing) == (before.units.keys(), before.missing)


def test_a_folder_that_is_no_study_is_a_line(run, tmp_path):
    code, _, err = run(tmp_path)
    assert code == 2
    assert err.startswith("lm-eval-amplify: error: ")
    assert "no study's folder" in err
    assert err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_a_line(run, study, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(study, "--out", tmp_path / "file")
    assert code == 2
    assert err == f"lm-eval-amplify: error: --out {tmp_path / 'file'}: cannot be written: File exists\n"


def test_without_matplotlib_the_message_says_what_to_install(run, study, monkeypatch):
    monkeypatch.setattr(drawing, "find_spec", lambda name: None)
    code, _, err = run(study)
    assert code == 2
    assert err == "lm-eval-amplify: error: figures need matplotlib: pip install 'lm-eval-amplify[report]'\n"

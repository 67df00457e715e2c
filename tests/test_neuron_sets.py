"""Neuron files as sets, and their overlap and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_amplify.errors import AmplifyError, NeuronFileError
from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile, write_neurons
from lm_eval_amplify.neurons.plots import plot_neurons, plot_overlap
from lm_eval_amplify.neurons.sets import intersect, jaccard, keys_of, subtract, union
from lm_eval_amplify.neurons.show import describe_overlap

LANGUAGES = tiny.LANGUAGES[:3]


def file_of(neurons: dict[str, list[tuple[int, int]]], *statistics: str, offset: float = 0, **fields) -> NeuronFile:
    """A file with these (layer, index); a statistic's value is offset + 100 layer + index."""
    found = {}
    for language, keys in neurons.items():
        layer, index = np.array(sorted(keys), np.int32).reshape(-1, 2).T
        values = (offset + 100 * layer + index).astype(np.float32)
        found[language] = LanguageNeurons(layer.copy(), index.copy(), dict.fromkeys(statistics, values))
    manifest = tiny.neurons("llama", tuple(neurons)).manifest
    return NeuronFile(manifest.model_copy(update=fields), found)


def sets_of(content: NeuronFile) -> dict[str, set]:
    return {language: {(layer, index) for layer, _, index in keys_of(own)} for language, own in content.neurons.items()}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 8)), min_size=2, max_size=4))
def test_they_are_those_of_sets(given_files: list[tuple[int, int]]) -> None:
    files = [tiny.neurons("llama", LANGUAGES, per_layer=number, seed=seed) for seed, number in given_files]
    sets = [sets_of(file) for file in files]
    for operation, combine in (
        (union, lambda parts: set.union(*parts)),
        (intersect, lambda parts: set.intersection(*parts)),
        (subtract, lambda parts: parts[0].difference(*parts[1:])),
    ):
        found = operation(files)
        assert sets_of(found) == {language: combine([own[language] for own in sets]) for language in LANGUAGES}
        assert found.manifest.method == operation.__name__
        assert len(found.manifest.parameters["of"]) == len(files)
    own, other = sets[:2]
    expected = [
        [len(own[a] & other[b]) / len(own[a] | other[b]) if own[a] | other[b] else np.nan for b in LANGUAGES]
        for a in LANGUAGES
    ]
    np.testing.assert_array_equal(jaccard(files[0], files[1]), expected)


def test_statistics_follow_their_neurons() -> None:
    one = file_of({"ind_Latn": [(0, 1), (1, 2)], "est_Latn": [(2, 3)]}, "max", "mean")
    two = file_of({"ind_Latn": [(0, 0), (1, 2)], "zho_Hans": [(0, 9)]}, "max", offset=0.5)
    both = union([one, two])
    assert both.languages == ("ind_Latn", "est_Latn", "zho_Hans")
    assert {name: v.tolist() for name, v in both.neurons["ind_Latn"].statistics.items()} == {"max": [0.5, 1.0, 102.0]}
    assert both.neurons["est_Latn"].statistics.keys() == {"max", "mean"}
    assert both.neurons["zho_Hans"].statistics["max"].tolist() == [9.5]
    shared = intersect([two, one])
    assert shared.languages == ("ind_Latn",)
    assert shared.neurons["ind_Latn"].statistics["max"].tolist() == [102.5]
    rest = subtract([one, two])
    assert sets_of(rest) == {"ind_Latn": {(0, 1)}, "est_Latn": {(2, 3)}}
    assert rest.neurons["ind_Latn"].statistics["mean"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([file_of({"ind_Latn": []})], "needs two neuron files or more, got 1"),
        (
            [file_of({"ind_Latn": []}), file_of({"ind_Latn": []}, num_layers=4)],
            "different models: manifest field 'num_layers' is 3 and 4",
        ),
        ([file_of({"ind_Latn": []}), file_of({"est_Latn": []})], "the 2 files have no language in common"),
    ],
)
def test_files_that_do_not_go_together_are_refused(files: list[NeuronFile], message: str) -> None:
    with pytest.raises(NeuronFileError, match=message):
        intersect(files)


def test_a_width_that_one_file_lacks_is_the_others_and_two_models_are_a_warning(caplog) -> None:
    one = file_of({"ind_Latn": [(0, 1)]}, intermediate_size=None, model="org/base")
    other = file_of({"ind_Latn": [(0, 1)]}, model="org/instruct")
    assert union([one, other]).manifest.intermediate_size == 48
    assert "two models of one shape, org/base and org/instruct" in caplog.text


class TestPictures:
    content = file_of({"ind_Latn": [(0, 1), (1, 2)], "zsm_Latn": [(0, 1)], "tam_Taml": []}, model="org/model")

    def test_an_overlap_is_a_table(self) -> None:
        lines = describe_overlap(jaccard(self.content, self.content), self.content, self.content).splitlines()
        assert lines[0].split() == ["%", "shared", "ind_Latn", "zsm_Latn", "tam_Taml"]
        assert [line.split() for line in lines[1:]] == [
            ["ind_Latn", "100.0", "50.0", "0.0"],
            ["zsm_Latn", "50.0", "100.0", "0.0"],
            ["tam_Taml", "0.0", "0.0", "-"],
        ]

    def test_labels_are_the_languages_names_and_the_same_file_gives_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.svg", "b.svg"):
            plot_neurons(self.content, tmp_path / name)
        text = (tmp_path / "a.svg").read_text()
        assert text == (tmp_path / "b.svg").read_text()
        for label in ("Indonesian  2", "Standard Malay  1", "Tamil  0", "Neurons per layer: org/model"):
            assert f"<!-- {label}" in text
        plot_overlap(jaccard(self.content, self.content), self.content, self.content, tmp_path / "c.svg")
        assert "<!-- Standard Malay -->" in (tmp_path / "c.svg").read_text()

    def test_a_place_or_format_that_does_not_do_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(AmplifyError, match=r"a\.txt: expected a file name that ends in \.\w+"):
            plot_neurons(self.content, tmp_path / "a.txt")
        with pytest.raises(AmplifyError, match="cannot write .*No such file"):
            plot_neurons(self.content, tmp_path / "none/a.png")
        assert list(tmp_path.iterdir()) == []

    def test_without_matplotlib_it_says_what_to_install(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(AmplifyError, match=r"pip install 'lm-eval-amplify\[plot\]'"):
            plot_neurons(self.content, tmp_path / "a.png")


def test_the_commands_do_it(tmp_path: Path, monkeypatch, capsys) -> None:
    from test_identify_cli import run

    a, b, c = (str(tmp_path / name) for name in "abc")
    write_neurons(file_of({"ind_Latn": [(0, 1), (1, 2)]}, "max"), a)
    write_neurons(file_of({"ind_Latn": [(1, 2)], "est_Latn": [(0, 0)]}, "max"), b)
    for command, number in (("union", 2), ("intersect", 1), ("subtract", 1)):
        assert run(monkeypatch, "neurons", command, a, b, "--out", c) == 0
        assert f"Indonesian        {number}  max" in capsys.readouterr().out
    assert run(monkeypatch, "neurons", "overlap", a, b, "--plot", tmp_path / "o.png") == 0
    assert "ind_Latn        50.0       0.0" in capsys.readouterr().out
    assert run(monkeypatch, "neurons", "show", a, "--plot", tmp_path / "s.png") == 0
    assert "drawn into" in capsys.readouterr().out
    for name in ("o.png", "s.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert run(monkeypatch, "neurons", "union", a, "--out", c) == 2
    assert "union needs two neuron files or more" in capsys.readouterr().err

"""Interrupted runs go on, and counts are exchanged with the reference implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import texts
import tiny
import torch
from test_identify import BUDGET, DOCUMENTS
from test_identify_cli import identify as arguments
from test_identify_cli import run
from texts import LANGUAGES, InMemory

from lm_eval_amplify.errors import DataError, IdentificationError
from lm_eval_amplify.identify import Activated, Keeping, Lape, Texts, add_statistics, identify
from lm_eval_amplify.identify.reference_counts import read_counts
from lm_eval_amplify.neurons import read_neurons
from lm_eval_amplify.neurons.random_control import random_control as draw
from lm_eval_amplify.neurons.serialize import to_bytes

TEXTS = Texts(InMemory(DOCUMENTS), BUDGET)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny.model("qwen2")


def forwards(model: torch.nn.Module, *, stop_after: int | None = None, **options) -> tuple[bytes, int]:
    """The file of a run and how often the model ran in it; ended by the user after some forward passes."""
    number = 0

    def count(*_: object) -> None:
        nonlocal number
        if number == stop_after:
            raise KeyboardInterrupt
        number += 1

    handle = model.model.register_forward_pre_hook(count)
    try:
        found = identify(model, tiny.tokenizer(), TEXTS, LANGUAGES, **({"method": Lape(0.3, 0.8, 0.8)} | options))
    finally:
        handle.remove()
    return to_bytes(found), number


@pytest.mark.parametrize("method", [Lape(0.3, 0.8, 0.8), Activated(6)], ids=["lape", "activation"])
def test_an_interrupted_run_goes_on_without_finished_languages_and_gives_the_same_bytes(
    model: torch.nn.Module, tmp_path: Path, method
) -> None:
    whole, needed = forwards(model, method=method)
    assert needed == 1 + 2 * len(LANGUAGES)  # the trial, then a batch per language to choose and one for statistics
    keeping = Keeping(tmp_path / "kept", "model")
    for stop_after in (3, 4):  # two languages done; then the two others, and one's statistics
        with pytest.raises(KeyboardInterrupt):
            forwards(model, method=method, keeping=keeping, stop_after=stop_after)
    rest, number = forwards(model, method=method, keeping=keeping)
    assert rest == whole
    assert number == 1 + len(LANGUAGES) - 1
    assert forwards(model, method=method, keeping=keeping) == (whole, 0)
    keeping.clear()
    assert not keeping.folder.exists()


def test_the_statistics_of_a_control_go_on_where_they_were_interrupted(model: torch.nn.Module, tmp_path: Path) -> None:
    drawn = draw(identify(model, tiny.tokenizer(), TEXTS, LANGUAGES, method=Lape(0.3, 0.8, 0.8)), seed=0)
    number = 0

    def count(*_: object) -> None:
        nonlocal number
        number += 1
        if number == 3:
            raise KeyboardInterrupt

    keeping = Keeping(tmp_path / "kept", "model")
    handle = model.model.register_forward_pre_hook(count)
    try:
        with pytest.raises(KeyboardInterrupt):
            add_statistics(drawn, model, tiny.tokenizer(), TEXTS, keeping=keeping)
        number = 10
        rest = add_statistics(drawn, model, tiny.tokenizer(), TEXTS, keeping=keeping)
    finally:
        handle.remove()
    whole = add_statistics(drawn, model, tiny.tokenizer(), TEXTS)
    assert to_bytes(rest) == to_bytes(whole)
    done = len(list((tmp_path / "kept").iterdir()))
    assert done == len(LANGUAGES)
    assert number - 10 < 1 + len(LANGUAGES)  # fewer than all that the whole takes


def test_what_was_kept_of_something_else_or_is_damaged_is_found_again(model: torch.nn.Module, tmp_path: Path) -> None:
    keeping = Keeping(tmp_path, "model")
    whole, needed = forwards(model, keeping=keeping)
    fewer = Texts(InMemory(DOCUMENTS), BUDGET - 1)
    found = identify(model, tiny.tokenizer(), fewer, LANGUAGES, method=Lape(0.3, 0.8, 0.8), keeping=keeping)
    assert found.manifest.tokens["ind_Latn"] == BUDGET - 1
    assert forwards(model, keeping=keeping) == (whole, needed)
    assert forwards(model, keeping=Keeping(tmp_path, "other")) == (whole, needed)
    forwards(model, keeping=keeping)
    path = tmp_path / "ind_Latn.counts.pt"
    path.write_bytes(path.read_bytes()[:-50])
    assert forwards(model, keeping=keeping) == (whole, 2)  # the trial, and that language's counts


def test_a_place_that_cannot_be_kept_in_is_one_line(model: torch.nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot keep what was found of est_Latn in .*file"):
        forwards(model, keeping=Keeping(tmp_path / "file", "model"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("given")
    return tiny.saved_model("qwen2", folder / "model"), texts.folder(folder / "corpus")


class TestCommand:
    def test_counts_are_the_references_and_give_the_same_neurons(
        self, monkeypatch, capsys, tmp_path: Path, given: tuple[Path, Path]
    ) -> None:
        whole, counts = tmp_path / "whole", tmp_path / "counts"
        options = ["--counts", counts, "--statistics", "max,median"]
        assert run(monkeypatch, *arguments(*given, whole), *options) == 0
        assert read_neurons(whole).statistics == ("max", "median")
        # As the reference reads its files: n and over_zero of each language, stacked.
        data = [torch.load(counts / f"{language}.counts.pt", weights_only=True) for language in LANGUAGES]
        n = torch.tensor([own["n"] for own in data])
        over_zero = torch.stack([own["over_zero"] for own in data], dim=-1)
        assert n.tolist() == [120] * len(LANGUAGES)
        assert over_zero.shape == (tiny.LAYERS, tiny.D_FF["qwen2"], len(LANGUAGES))
        # And in the type and under the names that it writes.
        files = []
        for language, own in zip(LANGUAGES, data, strict=True):
            files.append(tmp_path / f"activation.{language}.train.model")
            torch.save({"n": own["n"], "over_zero": own["over_zero"].to(torch.int32)}, files[-1])
        capsys.readouterr()
        command = ["neurons", "import-counts", *files, "--languages", ",".join(LANGUAGES), "--out", tmp_path / "again"]
        assert run(monkeypatch, *command, "--top-rate", 0.1, "--model", "org/model") == 0
        again = read_neurons(tmp_path / "again")
        for language, own in read_neurons(whole).neurons.items():
            np.testing.assert_array_equal(own.layer, again.neurons[language].layer)
            np.testing.assert_array_equal(own.index, again.neurons[language].index)
        assert (again.manifest.model, again.manifest.intermediate_size) == ("org/model", tiny.D_FF["qwen2"])
        assert again.manifest.tokens == dict.fromkeys(LANGUAGES, 120)

    def test_a_run_leaves_nothing_beside_its_file_and_an_interrupted_one_its_counts(
        self, monkeypatch, tmp_path: Path, given: tuple[Path, Path]
    ) -> None:
        out = tmp_path / "f"
        with monkeypatch.context() as patch:
            patch.setattr("lm_eval_amplify.identify.run.with_statistics", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(monkeypatch, *arguments(*given, out))
        assert sorted(path.name for path in (tmp_path / "f.counts").iterdir()) == [f"{c}.counts.pt" for c in LANGUAGES]
        assert not out.exists()
        see = "lm_eval_amplify.identify.activations._Counter.see"
        monkeypatch.setattr(see, lambda *_: pytest.fail("counted again"))
        assert run(monkeypatch, *arguments(*given, out)) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["f"]

    def test_a_mask_gets_statistics_and_becomes_a_mask_again(
        self, monkeypatch, capsys, tmp_path: Path, given: tuple[Path, Path]
    ) -> None:
        model, corpus = given
        masks = [[torch.tensor([1, 5]), torch.tensor([], dtype=torch.long), torch.tensor([3])] for _ in LANGUAGES]
        torch.save(masks, tmp_path / "m.pth")
        names = ",".join(LANGUAGES)
        assert (
            run(monkeypatch, "neurons", "import", tmp_path / "m.pth", "--languages", names, "--out", tmp_path / "a")
            == 0
        )
        reading = ["--model", model, "--corpus", f"text:{corpus}", "--tokens", 120, "--statistics", "max,p90"]
        assert run(monkeypatch, "neurons", "statistics", tmp_path / "a", *reading, "--out", tmp_path / "b") == 0
        assert read_neurons(tmp_path / "b").statistics == ("max", "p90")
        assert read_neurons(tmp_path / "b").manifest.statistics_of["rank_error"]["ind_Latn"] == {
            "sentences": 0.0,
            "tokens": 0.0,
        }
        capsys.readouterr()
        assert run(monkeypatch, "neurons", "export", tmp_path / "b", "--out", tmp_path / "n.pth") == 0
        printed = capsys.readouterr()
        assert "no place for these, they are not in it: language names, max, p90" in printed.err
        assert names in printed.out
        again = torch.load(tmp_path / "n.pth", weights_only=True)
        assert [[own.tolist() for own in layers] for layers in again] == [[[1, 5], [], [3]]] * len(LANGUAGES)
        assert {own.dtype for layers in again for own in layers} == {torch.int64}

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--method", "lapse"], "method=lapse (did you mean 'lape'?)"),
            (["--method", "random", "--filter-rate", "0.5"], "method random has no parameter filter_rate"),
            (["--statistics", "max,meen"], "unknown statistic 'meen'"),
            (["--corpus", "hub:org/none?txt=a"], "no option 'txt'"),
            (["--chat-template", "--corpus", "flores:/no/such"], "data_dir=/no/such is not a folder"),
            (["--device", "cpu", "--device-map", "auto"], "give one of the two"),
        ],
    )
    def test_a_mistake_is_one_line(
        self, monkeypatch, capsys, tmp_path: Path, given: tuple[Path, Path], more: list[str], message: str
    ) -> None:
        if "flores:/no/such" in more:
            more = [*more, "--languages", "ind_Latn,est_Latn"]
        assert run(monkeypatch, *arguments(*given, tmp_path / "f"), *more) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "is not a file of counts: expected whole numbers"),
        ({"n": 3}, "is not a file of counts"),
        ({"n": 3, "over_zero": torch.zeros(2, 2)}, "is not a file of counts"),
        ({"n": 3, "over_zero": torch.full((2, 2), 4)}, "lie between 0 and 4, expected 0 to its number of tokens, 3"),
    ],
)
def test_other_content_than_counts_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "c")
    with pytest.raises(IdentificationError, match=message):
        read_counts([tmp_path / "c"], ["id"])


def test_counts_need_a_language_each(tmp_path: Path) -> None:
    with pytest.raises(IdentificationError, match="1 files of counts, and the languages ind_Latn, est_Latn"):
        read_counts([tmp_path / "c"], ["id", "et"])
    with pytest.raises(IdentificationError, match="cannot read counts .*No such file"):
        read_counts([tmp_path / "c"], ["id"])
    (tmp_path / "c").write_bytes(b"no")
    with pytest.raises(IdentificationError, match="loads without running code"):
        read_counts([tmp_path / "c"], ["id"])

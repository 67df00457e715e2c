"""``lm-eval-amplify identify`` and ``neurons random``, as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import texts
import tiny
from lm_eval.api.instance import Instance

from lm_eval_amplify import cli
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import read_neurons

STATISTICS = ("max", "mean", "median", "p10", "p90", "sentence_max", "sentence_median")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved_model("qwen2", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts.folder(tmp_path_factory.mktemp("corpus"))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command line in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["lm-eval-amplify", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def identify(model: Path, corpus: Path, out: Path, *more: object) -> list[object]:
    common = ["identify", "--model", model, "--corpus", f"text:{corpus}", "--out", out]
    return [*common, "--tokens", 120, "--top-rate", 0.1, *more]


def test_the_file_that_it_writes_amplifies_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, model: Path, corpus: Path
) -> None:
    out = tmp_path / "f.neurons.safetensors"
    assert run(monkeypatch, *identify(model, corpus, out, "--languages", "id,est_Latn,zho_Hans")) == 0
    printed = capsys.readouterr()
    assert "Indonesian" in printed.out
    assert f"written to {out}" in printed.out
    assert "━" not in printed.err  # no bar where there is no terminal

    content = read_neurons(out)
    assert content.languages == ("ind_Latn", "est_Latn", "zho_Hans")
    assert content.statistics == STATISTICS
    language = max(content.neurons, key=lambda name: len(content.neurons[name]))
    request = Instance("loglikelihood", {}, ("mees avas", " kraani"), 0)
    scores = {
        factor: AmplifiedHFLM(neurons=str(out), language=language, factor=factor, device="cpu").loglikelihood(
            [request], disable_tqdm=True
        )[0][0]
        for factor in (1.0, 3.0)
    }
    assert scores[1.0] != scores[3.0]


def test_it_writes_the_same_bytes_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, corpus: Path
) -> None:
    for name in ("a", "b"):
        assert run(monkeypatch, *identify(model, corpus, tmp_path / name)) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_random_neurons_get_statistics_with_model_and_corpus_and_none_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, model: Path, corpus: Path
) -> None:
    source, bare, full = tmp_path / "f", tmp_path / "bare", tmp_path / "full"
    assert run(monkeypatch, *identify(model, corpus, source)) == 0
    assert run(monkeypatch, "neurons", "random", source, "--seed", 3, "--out", bare) == 0
    assert "no statistics: operations set and add need them" in capsys.readouterr().out
    reading = ["--model", model, "--corpus", f"text:{corpus}", "--tokens", 120]
    assert run(monkeypatch, "neurons", "random", source, "--seed", 3, "--out", full, *reading) == 0
    assert "no statistics" not in capsys.readouterr().out
    without, have = read_neurons(bare), read_neurons(full)
    assert (without.statistics, have.statistics) == ((), STATISTICS)
    for language, own in have.neurons.items():
        np.testing.assert_array_equal(own.layer, without.neurons[language].layer)
        np.testing.assert_array_equal(own.index, without.neurons[language].index)
    assert have.manifest.parameters == without.manifest.parameters


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--languages", "ind_Latn,xyz"], "unknown language 'xyz'"),
        (["--languages", "ind_Latn,fra_Latn"], "has no fra_Latn.txt or fra_Latn.txt.gz"),
        (["--languages", "ind_Latn"], "give two or more"),
        (["--tokens", "100000"], "fewer than the 100000 asked for"),
        (["--top-rate", "0"], "top_rate=0.0: expected a share"),
        (["--filter-rate", "95"], "filter_rate=95.0: expected a share"),
        (["--corpus", "text:/no/such"], "there is no folder /no/such"),
        (["--model", "/no/such"], "cannot load model '/no/such'"),
        (["--dtype", "float23"], "dtype=float23 (did you mean 'float32'"),
        (["--device", "cuda:99"], "device=cuda:99"),
        (["--device", "gpu"], "device=gpu"),
        (["--max-length", "1", "--batch-size", "1", "--tokens", "999999"], "fewer than the 999999"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2_and_leaves_the_old_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    model: Path,
    corpus: Path,
    more: list[str],
    message: str,
) -> None:
    out = tmp_path / "f"
    out.write_bytes(b"old")
    assert run(monkeypatch, *identify(model, corpus, out), *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("lm-eval-amplify: error: ")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize(("content", "message"), [(b"\xff\n", "line 1: byte 0xff"), (b"", "is empty")])
def test_bad_texts_are_one_line_with_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    tmp_path: Path,
    model: Path,
    content: bytes,
    message: str,
) -> None:
    folder = texts.folder(tmp_path / "corpus")
    (folder / "tam_Taml.txt").write_bytes(content)
    assert run(monkeypatch, *identify(model, folder, tmp_path / "f")) == 2
    error = capsys.readouterr().err
    assert str(folder / "tam_Taml.txt") in error
    assert message in error
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("place", ["missing/f", "file/f", "."])
def test_a_place_that_cannot_be_written_to_is_found_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, corpus: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("lm_eval_amplify.identify.loading.load_model", lambda *_, **__: pytest.fail("loaded"))
    assert run(monkeypatch, *identify(Path("any"), corpus, tmp_path / place)) == 2
    assert "cannot write neuron file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_statistics_of_random_neurons_need_both_model_and_corpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path, model: Path
) -> None:
    arguments = ["neurons", "random", "any", "--seed", 1, "--out", tmp_path / "f", "--model", model]
    assert run(monkeypatch, *arguments) == 2
    assert "need both --model and --corpus" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["identify"], ["neurons", "random"]])
def test_help_imports_no_torch(command: list[str]) -> None:
    code = (
        "import sys; from lm_eval_amplify.cli import app\n"
        f"try: app({[*command, '--help']!r})\n"
        "finally: assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout

"""A neuron file: what is written is read again, byte for byte, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_amplify.errors import LanguageError, NeuronFileError
from lm_eval_amplify.neurons import (
    LanguageNeurons,
    Manifest,
    NeuronFile,
    locate_neurons,
    read_neurons,
    write_neurons,
)
from lm_eval_amplify.neurons.serialize import FORMAT, from_bytes, to_bytes


def manifest(**changes) -> Manifest:
    fields = {
        "num_layers": 4,
        "intermediate_size": 10,
        "method": "lape",
        "package_version": "0.1.0",
        "languages": ("ind_Latn", "est_Latn"),
    }
    return Manifest(**fields | changes)


def language(pairs, **statistics) -> LanguageNeurons:
    pairs = list(pairs)
    return LanguageNeurons(
        np.array([layer for layer, _ in pairs], np.int32),
        np.array([index for _, index in pairs], np.int32),
        {name: np.array(values, np.float32) for name, values in statistics.items()},
    )


def example() -> NeuronFile:
    return NeuronFile(
        manifest(),
        {"ind_Latn": language([(0, 3), (0, 7), (2, 1)], max=[1.5, -2, 0.25]), "est_Latn": language([])},
    )


def as_plain(content: NeuronFile):
    return content.manifest.model_dump(), {
        name: (own.layer.tolist(), own.index.tolist(), {k: v.tolist() for k, v in own.statistics.items()})
        for name, own in content.neurons.items()
    }


@st.composite
def neuron_files(draw) -> NeuronFile:
    layers, d_ff = draw(st.integers(1, 5)), draw(st.integers(1, 30))
    names = draw(st.lists(st.sampled_from(tiny.LANGUAGES), unique=True, max_size=4))
    statistics = draw(st.lists(st.sampled_from(["max", "mean", "p90"]), unique=True))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    found = {}
    for name in names:
        pairs = sorted(draw(st.sets(st.tuples(st.integers(0, layers - 1), st.integers(0, d_ff - 1)), max_size=12)))
        values = {s: draw(st.lists(number, min_size=len(pairs), max_size=len(pairs))) for s in statistics}
        found[name] = language(pairs, **values)
    return NeuronFile(manifest(num_layers=layers, intermediate_size=d_ff, languages=tuple(names)), found)


@given(neuron_files())
def test_what_is_written_is_read_again(content):
    again = from_bytes(to_bytes(content))
    assert as_plain(again) == as_plain(content)
    assert to_bytes(again) == to_bytes(content)


def test_the_bytes_are_those_of_the_specification():
    """Worked out by hand from neuron_masks/README.md."""
    values = struct.pack("<3i", 3, 7, 1) + struct.pack("<3i", 0, 0, 2) + struct.pack("<3f", 1.5, -2, 0.25)
    manifest_text = (
        '{"architecture":null,"corpus":null,"intermediate_size":10,"languages":["ind_Latn","est_Latn"],'
        '"method":"lape","model":null,"num_experts":null,"num_layers":4,"package_version":"0.1.0",'
        '"parameters":{},"revision":null,"site":"act_fn","tokens":{}}'
    )
    digest = hashlib.sha256(manifest_text.encode())
    for name, dtype, shape, data in (
        ("est_Latn/index", "int32", "(0,)", b""),
        ("est_Latn/layer", "int32", "(0,)", b""),
        ("ind_Latn/index", "int32", "(3,)", values[:12]),
        ("ind_Latn/layer", "int32", "(3,)", values[12:24]),
        ("ind_Latn/stat.max", "float32", "(3,)", values[24:]),
    ):
        digest.update(f"\n{name} {dtype} {shape}\n".encode() + data)
    written = to_bytes(example())
    (length,) = struct.unpack("<Q", written[:8])
    header = json.loads(written[8 : 8 + length])
    assert header["__metadata__"] == {
        "checksum": digest.hexdigest(),
        "format": "lm-eval-amplify/neurons",
        "manifest": manifest_text,
        "version": "1",
    }
    assert length % 8 == 0
    body = written[8 + length :]
    assert len(body) == len(values)
    for name, data in (("index", values[:12]), ("layer", values[12:24]), ("stat.max", values[24:])):
        first, last = header[f"ind_Latn/{name}"]["data_offsets"]
        assert body[first:last] == data
    assert header["ind_Latn/stat.max"]["dtype"] == "F32"
    assert (
        written[8 : 8 + length].rstrip(b" ")
        == json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )


def test_every_process_writes_the_same_bytes(tmp_path):
    path = tmp_path / "n.safetensors"
    write_neurons(example(), path)
    script = (
        "import sys, hashlib; from lm_eval_amplify.neurons import read_neurons;"
        "from lm_eval_amplify.neurons.serialize import to_bytes;"
        "print(hashlib.sha256(to_bytes(read_neurons(sys.argv[1]))).hexdigest())"
    )
    digests = {
        subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(4)
    }
    assert digests == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_an_ordinary_safetensors_reader_reads_it(tmp_path):
    path = tmp_path / "n.safetensors"
    write_neurons(example(), path)
    assert safetensors.numpy.load_file(path)["ind_Latn/index"].tolist() == [3, 7, 1]


def test_the_digest_is_that_of_the_file(tmp_path):
    path = tmp_path / "n.safetensors"
    write_neurons(example(), path)
    assert read_neurons(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=300)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_one_flipped_bit_is_noticed(position, bit):
    data = bytearray(to_bytes(example()))
    data[position % len(data)] ^= 1 << bit
    try:
        read = from_bytes(bytes(data))
    except NeuronFileError as error:
        assert "\n" not in str(error)
    else:  # only what says nothing may change unnoticed: the name of the checksum, spaces of padding
        assert as_plain(read) == as_plain(example())


@given(st.integers(0, 10**6))
def test_a_truncated_file_is_refused(length):
    data = to_bytes(example())
    with pytest.raises(NeuronFileError, match="truncated or damaged"):
        from_bytes(data[: length % len(data)])


def metadata_of(data: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


def forged(tensors=None, **metadata) -> bytes:
    """A safetensors file with our metadata but for the given changes, without a checksum."""
    fields = metadata_of(to_bytes(example()))
    fields.pop("checksum")
    if tensors is None:
        tensors = safetensors.numpy.load(to_bytes(example()))
    return safetensors.numpy.save(tensors, fields | metadata)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps([[[1]]]), "pickle"),
        (b"", "truncated"),
        (b"hello, world", "not a safetensors file"),
        (safetensors.numpy.save({"a": np.zeros(2, np.float32)}), "not a neuron file"),
        (forged(version="2"), "metadata field 'version' is '2', expected '1'"),
        (forged(format="other"), "metadata field 'format' is 'other'"),
        (forged(manifest="{}"), "manifest field 'num_layers': Field required"),
        (forged(manifest="not json"), "manifest field 'as a whole'"),
        (forged({"ind_Latn/layer": np.zeros(1, np.int32)}), "tensor 'ind_Latn/index' is missing"),
        (forged({"ind_Latn/depth": np.zeros(1, np.int32)}), "tensor 'ind_Latn/depth'"),
        (forged({"ind_Latn/layer": np.zeros(1, np.int64)}), "is of type I64, expected I32 or F32"),
        (
            forged({f"fra_Latn/{n}": np.zeros(1, np.int32) for n in ("layer", "index")}),
            "manifest field 'languages'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the bytes differ from run to run
)
def test_another_file_is_refused_with_what_it_is(data, message):
    with pytest.raises(NeuronFileError, match=message):
        from_bytes(data)


def test_a_torch_file_is_called_a_pickle(tmp_path):
    torch.save([[torch.tensor([1])]], tmp_path / "mask.pth")
    with pytest.raises(NeuronFileError, match="mask.pth: this is a pickle .* neurons import"):
        read_neurons(tmp_path / "mask.pth")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            language([(4, 0)]),
            r"'ind_Latn/layer' holds 4 at 0, expected 0 to 3 \(manifest field 'num_layers' is 4\)",
        ),
        (language([(0, 1), (1, 10)]), "'ind_Latn/index' holds 10 at 1, expected 0 to 9"),
        (language([(0, -1)]), "'ind_Latn/index' holds -1"),
        (language([(0, 2), (0, 2)]), "not sorted and unique"),
        (language([(1, 2), (0, 3)]), "not sorted and unique"),
        (language([(0, 1)], max=[1, 2]), r"'ind_Latn/stat.max' is float32\[2\], expected float32\[1\]"),
        (language([(0, 1)], max=[float("nan")]), "holds nan at 0, expected a finite number"),
        (language([(0, 1)], one=[1]), "statistic 'one'"),
    ],
)
def test_neurons_that_cannot_be_are_refused(own, message):
    with pytest.raises(NeuronFileError, match=message):
        NeuronFile(manifest(languages=("ind_Latn",)), {"ind_Latn": own})


def test_a_language_is_found_by_any_of_its_names_and_a_wrong_one_is_told_the_right_ones():
    content = example()
    assert content.resolve_language("Indonesian") == content.resolve_language("id") == "ind_Latn"
    with pytest.raises(LanguageError, match="no language 'fra_Latn'; it has ind_Latn, est_Latn"):
        content.resolve_language("fr")
    with pytest.raises(LanguageError, match="unknown language 'ind_Latin' .*did you mean 'ind_Latn'"):
        content.resolve_language("ind_Latin")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "n.safetensors"
    write_neurons(example(), path)
    before = path.read_bytes()

    def full_disk(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(NeuronFileError, match=r"cannot write .*n\.safetensors: No space left on device"):
        write_neurons(example(), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_file_is_found_by_path_by_bundled_name_and_on_the_hub(tmp_path, monkeypatch):
    bundled = tmp_path / "masks"
    bundled.mkdir()
    write_neurons(example(), bundled / "toy.neurons.safetensors")
    monkeypatch.setattr("lm_eval_amplify.neurons.locate.neuron_masks_folder", lambda: bundled)
    assert locate_neurons("toy") == bundled / "toy.neurons.safetensors"
    assert locate_neurons(str(bundled / "toy.neurons.safetensors")).is_file()
    with pytest.raises(NeuronFileError, match="no neuron file 'toys' .*did you mean 'toy'"):
        locate_neurons("toys")

    # What a download leaves in the Hub's cache.
    snapshot = tmp_path / "hub" / "models--org--repo" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    write_neurons(example(), snapshot / "a.neurons.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = locate_neurons("hf://org/repo/a.neurons.safetensors@main")
    assert as_plain(read_neurons(found)) == as_plain(example())
    with pytest.raises(NeuronFileError, match="cannot get hf://org/repo/b.safetensors: "):
        locate_neurons("hf://org/repo/b.safetensors")
    with pytest.raises(NeuronFileError, match="not of the form"):
        locate_neurons("hf://org/repo")


def test_a_missing_file_is_named():
    with pytest.raises(NeuronFileError, match="cannot read neuron file nowhere/x: No such file"):
        read_neurons("nowhere/x")
    assert FORMAT == "lm-eval-amplify/neurons"

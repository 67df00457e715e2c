"""Masks of the reference implementation become neuron files."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from lm_eval_amplify.errors import LanguageError, NeuronFileError
from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile
from lm_eval_amplify.neurons.reference import export_reference_mask, import_reference_mask
from lm_eval_amplify.neurons.show import describe


def save(path, masks):
    torch.save([[torch.tensor(index, dtype=torch.long) for index in layers] for layers in masks], path)
    return path


def test_a_mask_keeps_every_neuron_in_its_place(tmp_path):
    path = save(tmp_path / "m.pth", [[[5, 2], []], [[], [7]]])
    content = import_reference_mask(path, ["en", "zho_Hans"], model="org/m", intermediate_size=8)
    assert content.languages == ("eng_Latn", "zho_Hans")
    assert content.neurons["eng_Latn"].layer.tolist() == [0, 0]
    assert content.neurons["eng_Latn"].index.tolist() == [2, 5]
    assert content.neurons["zho_Hans"].layer.tolist() == [1]
    assert content.statistics == ()
    assert (content.manifest.model, content.manifest.num_layers) == ("org/m", 2)


def test_the_published_mask_of_llama_2_has_its_published_numbers_and_is_exported_as_it_is(real_data, tmp_path):
    """Counts, and the union of round(0.01 * 32 * 11008) neurons, as the mask's source gives them."""
    path = real_data / "masks" / "LLaMA-2-7B.neuron.pth"
    content = import_reference_mask(path, "en,zh,fr,es,vi,id,ja".split(","), intermediate_size=11008)
    assert [len(content.neurons[language]) for language in content.languages] == [
        95,
        583,
        1022,
        838,
        836,
        1068,
        582,
    ]
    assert export_reference_mask(content, tmp_path / "again.pth") == ("language names",)
    masks, again = (torch.load(where, weights_only=True) for where in (path, tmp_path / "again.pth"))
    for layers, others in zip(masks, again, strict=True):
        assert all(torch.equal(index, other) for index, other in zip(layers, others, strict=True))
    text = describe(content)
    assert "ind_Latn    Indonesian               1068  none" in text
    assert "3523" in text


def test_the_shares_by_layer_add_up(tmp_path):
    content = import_reference_mask(save(tmp_path / "m.pth", [[[1, 2, 3], [4]], [[], []]]), ["en", "fr"])
    lines = describe(content).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("% by layer"))
    assert [line.split() for line in lines[start + 1 : start + 3]] == [["0", "75.0", "-"], ["1", "25.0", "-"]]


@pytest.mark.parametrize(
    ("masks", "languages", "error", "message"),
    [
        ([[[1]]], ["en", "fr"], NeuronFileError, "holds 1 languages, but 2 are named"),
        ([[[1]], [[1], [2]]], ["en", "fr"], NeuronFileError, "not a reference mask"),
        ([[[1]]], ["engl_Latn"], LanguageError, "unknown language 'engl_Latn'"),
        ([[[9]]], ["en"], NeuronFileError, "holds 9 at 0, expected 0 to 7"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, masks, languages, error, message):
    with pytest.raises(error, match=message):
        import_reference_mask(save(tmp_path / "m.pth", masks), languages, intermediate_size=8)


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_no_code_in_a_mask_is_run(tmp_path, capsys):
    torch.save([[Payload()]], tmp_path / "m.pth")
    with pytest.raises(NeuronFileError, match="without running code"):
        import_reference_mask(tmp_path / "m.pth", ["en"])
    assert "code ran" not in capsys.readouterr().out


def test_other_content_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pth")
    with pytest.raises(NeuronFileError, match="not a reference mask"):
        import_reference_mask(tmp_path / "m.pth", ["en"])
    torch.save([[torch.zeros(2)]], tmp_path / "f.pth")
    with pytest.raises(NeuronFileError, match=r"layer 0 of eng_Latn is float32\[2\]"):
        import_reference_mask(tmp_path / "f.pth", ["en"])
    with pytest.raises(NeuronFileError, match="No such file"):
        import_reference_mask(tmp_path / "none.pth", ["en"])


def test_what_a_mask_cannot_hold_is_named_or_refused(tmp_path):
    content = tiny.neurons("llama", ("ind_Latn",), statistics=("max", "p90"))
    assert export_reference_mask(content, tmp_path / "m.pth") == ("language names", "max", "p90")
    again = import_reference_mask(tmp_path / "m.pth", ["id"])
    assert again.neurons["ind_Latn"].index.tolist() == content.neurons["ind_Latn"].index.tolist()
    with pytest.raises(NeuronFileError, match="cannot write mask .*No such file"):
        export_reference_mask(content, tmp_path / "none" / "m.pth")
    own = content.neurons["ind_Latn"]
    experts = LanguageNeurons(own.layer, own.index, expert=np.zeros_like(own.layer))
    manifest = content.manifest.model_copy(update={"num_experts": 2})
    with pytest.raises(NeuronFileError, match="mixture of experts"):
        export_reference_mask(NeuronFile(manifest, {"ind_Latn": experts}), tmp_path / "m.pth")

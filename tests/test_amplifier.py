"""Amplifying a model equals changing its forward by hand, and leaves nothing behind."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import tiny
import torch

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.architecture import find_feed_forwards
from lm_eval_amplify.errors import ArchitectureError, InterventionError, LanguageError, NeuronFileError
from lm_eval_amplify.intervention import Intervention

INPUTS = torch.tensor([[5, 9, 300, 17, 42, 8], [7, 7, 12, 250, 1, 1]])
INTERVENTIONS = [
    Intervention("set", 1.5, "max"),
    Intervention("add", -0.75, "sentence_median"),
    Intervention("scale", 2.5),
    Intervention("set", 0),
    Intervention("set", 3, "one", layers="0+2"),
    Intervention("scale", 4, others_operation="scale", others_factor=0),
    Intervention("add", 1, "max", others_operation="set", others_factor=0.5),
]


def changed_by_hand(activation: torch.Tensor, layer: int, content, target: str, intervention: Intervention):
    """The intervention's definition, one scalar at a time; ``activation`` is ``[batch, pos, d_ff]``."""
    if intervention.layers != "all" and str(layer) not in intervention.layers.split("+"):
        return activation
    changed = activation.clone()
    done = set()
    order = [(target, intervention.operation, intervention.factor)]
    if intervention.others_operation:
        order += [
            (language, intervention.others_operation, intervention.others_factor)
            for language in content.languages
            if language != target
        ]
    for language, operation, factor in order:
        own = content.neurons[language]
        for position in range(len(own)):
            index = int(own.index[position])
            if int(own.layer[position]) != layer or index in done:
                continue
            done.add(index)
            name = intervention.statistic
            statistic = 1.0 if name == "one" else float(own.statistics[name][position])
            for row in range(changed.shape[0]):
                for pos in range(changed.shape[1]):
                    before = activation[row, pos, index]
                    changed[row, pos, index] = {
                        "set": factor * statistic,
                        "add": before + factor * statistic,
                        "scale": factor * before,
                    }[operation]
    return changed


@contextmanager
def forward_by_hand(model, family, content, target, intervention):
    """Replace the forward of every feed-forward network by its formula with the activation changed."""
    layers = model.transformer.h if family == "gpt2" else model.model.layers
    old = [layer.mlp.forward for layer in layers]
    for number, layer in enumerate(layers):
        mlp = layer.mlp

        def forward(x, mlp=mlp, number=number):
            if family == "gpt2":
                activation = torch.nn.functional.gelu(mlp.c_fc(x), approximate="tanh")
                return mlp.c_proj(changed_by_hand(activation, number, content, target, intervention))
            function = {
                "llama": torch.nn.functional.silu,
                "qwen2": torch.nn.functional.silu,
                "gemma2": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
            }[family]
            activation = changed_by_hand(function(mlp.gate_proj(x)), number, content, target, intervention)
            return mlp.down_proj(activation * mlp.up_proj(x))

        mlp.forward = forward
    try:
        yield
    finally:
        for layer, forward in zip(layers, old, strict=True):
            layer.mlp.forward = forward


def logits(model, inputs=INPUTS):
    with torch.no_grad():
        return model(inputs).logits


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model, before):
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("intervention", INTERVENTIONS, ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_intervention_equals_a_forward_changed_by_hand(family, intervention):
    model, content = tiny.model(family), tiny.neurons(family)
    with forward_by_hand(model, family, content, "ind_Latn", intervention):
        expected = logits(model)
    with Amplifier(model, content, intervention, mode="hook").amplified("ind_Latn"):
        amplified = logits(model)
    assert not torch.allclose(amplified, logits(model), atol=1e-3)
    torch.testing.assert_close(amplified, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_folding_equals_hooking(family):
    model, content = tiny.model(family), tiny.neurons(family)
    for intervention in INTERVENTIONS:
        if any(operation != "scale" for operation, _ in intervention.operations):
            continue
        with Amplifier(model, content, intervention, mode="hook").amplified("tam_Taml"):
            hooked = logits(model)
        with Amplifier(model, content, intervention, mode="fold").amplified("tam_Taml"):
            folded = logits(model)
        torch.testing.assert_close(folded, hooked, atol=2e-5, rtol=1e-5)


def test_folding_registers_no_hook_and_replaces_no_module():
    model = tiny.model("llama")
    modules = list(model.modules())
    amplifier = Amplifier(model, tiny.neurons("llama"), Intervention("scale", 2))
    assert amplifier.mode == "fold"
    with amplifier.amplified("ind_Latn"):
        assert list(model.modules()) == modules
        hooks = [(module._forward_hooks, module._forward_pre_hooks) for module in model.modules()]
        assert not any(after or before for after, before in hooks)


@pytest.mark.parametrize("mode", ["fold", "hook"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_twenty_switches_leave_the_weights_bit_equal(family, mode):
    model, content = tiny.model(family), tiny.neurons(family)
    before, plain = bits(model), logits(model)
    amplifier = Amplifier(model, content, Intervention("scale", 3.1), mode=mode)
    for number in range(20):
        with amplifier.amplified(content.languages[number % len(content.languages)]):
            logits(model)
    assert_untouched(model, before)
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("mode", ["fold", "hook"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_survives_an_exception(mode, error):
    model = tiny.model("qwen2")
    before = bits(model)
    amplifier = Amplifier(model, tiny.neurons("qwen2"), Intervention("scale", 3), mode=mode)
    with pytest.raises(error), amplifier.amplified("ind_Latn"):
        raise error
    assert_untouched(model, before)


def test_an_exception_while_folding_undoes_what_was_folded(monkeypatch):
    model = tiny.model("qwen2")
    before = bits(model)
    amplifier = Amplifier(model, tiny.neurons("qwen2"), Intervention("scale", 3), mode="fold")
    from lm_eval_amplify import amplifier as module

    fold, calls = module._fold, []

    def interrupted(*arguments):
        calls.append(arguments)
        fold(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_fold", interrupted)
    with pytest.raises(KeyboardInterrupt), amplifier.amplified("ind_Latn"):
        pass
    assert len(calls) == 2
    assert_untouched(model, before)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_row_and_position_is_amplified_and_no_other_neuron(family):
    model, content = tiny.model(family), tiny.neurons(family)
    intervention = Intervention("set", 2, "one")
    amplifier = Amplifier(model, content, intervention)
    block = amplifier._blocks[0]
    seen = []
    own = content.neurons["ind_Latn"]
    chosen = torch.from_numpy(own.index[own.layer == 0]).long()
    handle = block.site.activation.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
    with amplifier.amplified("ind_Latn"):
        # Registered after the intervention's hook, so it sees what the model goes on with.
        after = block.site.activation.register_forward_hook(lambda _m, _i, output: seen.append(output.clone()))
        logits(model)
        after.remove()
    handle.remove()
    plain, changed = seen
    rest = torch.ones(tiny.D_FF[family], dtype=torch.bool)
    rest[chosen] = False
    assert torch.equal(changed[..., rest], plain[..., rest])
    assert (changed[..., chosen] == 2).all()


def test_layers_before_the_first_change_are_bit_equal():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    with torch.no_grad():
        plain = model(INPUTS, output_hidden_states=True).hidden_states
        with Amplifier(model, content, Intervention("set", 1, "max", layers="2")).amplified("ind_Latn"):
            amplified = model(INPUTS, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], amplified[:3], strict=True))
    assert not torch.equal(plain[3], amplified[3])


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_batch_of_mixed_lengths_equals_one_by_one(family, padding_side):
    model, content = tiny.model(family), tiny.neurons(family)
    texts = [[5, 9, 300], [7, 12, 250, 33, 21, 90, 11], [44]]
    longest = max(map(len, texts))
    pads = [[1] * (longest - len(text)) for text in texts]
    left = padding_side == "left"
    rows = torch.tensor([pad + text if left else text + pad for pad, text in zip(pads, texts, strict=True)])
    mask = torch.tensor(
        [
            [0] * len(pad) + [1] * len(text) if left else [1] * len(text) + [0] * len(pad)
            for pad, text in zip(pads, texts, strict=True)
        ]
    )
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), Amplifier(model, content, Intervention("add", 1, "max")).amplified("ind_Latn"):
        batched = model(rows, attention_mask=mask, position_ids=positions).logits
        for row, text in enumerate(texts):
            alone = model(torch.tensor([text])).logits[0]
            together = batched[row, -len(text) :] if left else batched[row, : len(text)]
            torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_generation_amplifies_the_first_new_token_and_every_later_one():
    """With a cache, equal to recomputing the whole text for every token."""
    model, content = tiny.model("llama"), tiny.neurons("llama")
    prompt = INPUTS[:1]
    with torch.no_grad(), Amplifier(model, content, Intervention("set", 4, "max")).amplified("ind_Latn"):
        generated = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)[0].tolist()
        text = prompt[0].tolist()
        for _ in range(8):
            text.append(int(logits(model, torch.tensor([text]))[0, -1].argmax()))
    assert generated == text


def test_several_languages_are_amplified_together():
    model, content = tiny.model("gpt2"), tiny.neurons("gpt2")
    intervention = Intervention("set", 1, "max")
    amplifier = Amplifier(model, content, intervention)
    with amplifier.amplified("ind_Latn", "est_Latn"):
        both = logits(model)
    with amplifier.amplified("ind_Latn"):
        one = logits(model)
    assert not torch.allclose(both, one, atol=1e-3)
    pairs = {
        (int(layer), int(index))
        for name in ("ind_Latn", "est_Latn")
        for layer, index in zip(content.neurons[name].layer, content.neurons[name].index, strict=True)
    }
    assert amplifier.number_of_neurons("ind_Latn", "est_Latn") == len(pairs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_keep_their_type_and_the_factors_digits(dtype):
    """A factor that the type cannot hold is applied before rounding, not after."""
    model, content = tiny.model("qwen2").to(dtype), tiny.neurons("qwen2")
    amplifier = Amplifier(model, content, Intervention("scale", 5325 / 4096), mode="fold")
    before = bits(model)
    own = content.neurons["ind_Latn"]
    index = torch.from_numpy(own.index[own.layer == 0]).long()
    weight = model.model.layers[0].mlp.down_proj.weight
    expected = (weight[:, index].double() * 5325 / 4096).to(dtype)
    with amplifier.amplified("ind_Latn"):
        assert weight.dtype == dtype
        assert torch.equal(weight[:, index], expected)
        assert logits(model).dtype == dtype
    assert_untouched(model, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("intervention", INTERVENTIONS[:3], ids=str)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_nothing_upcasts_silently(family, intervention, dtype):
    model = tiny.model(family).to(dtype)
    seen = []
    for block in find_feed_forwards(model):
        block.down.register_forward_hook(lambda _m, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    with Amplifier(model, tiny.neurons(family), intervention, mode="hook").amplified("ind_Latn"):
        assert logits(model).dtype == dtype
    assert seen == [(dtype, dtype)] * tiny.LAYERS
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU, torch.nn.Identity])
def test_an_activation_that_keeps_its_output_or_hands_on_its_input_is_not_written_over(activation):
    """Tanh and ReLU need their output for the gradient; Identity gives back what the gate projection gave it."""
    model, content = tiny.model("llama"), tiny.neurons("llama")
    given = []
    for layer in model.model.layers:
        layer.mlp.act_fn = activation()
        layer.mlp.gate_proj.register_forward_hook(lambda _m, _i, output: given.append((output, output.clone())))
    with Amplifier(model, content, Intervention("set", 5, "one")).amplified("ind_Latn"):
        model(INPUTS).logits.sum().backward()
        logits(model)
    assert all(torch.equal(now, before) for now, before in given)


def test_gradients_flow_through_an_amplified_model():
    model, content = tiny.model("llama"), tiny.neurons("llama")
    for intervention in (Intervention("scale", 2), Intervention("set", 1, "max")):
        with Amplifier(model, content, intervention, mode="hook").amplified("ind_Latn"):
            model(INPUTS).logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_permuting_the_neurons_permutes_nothing_else():
    """The same model with its hidden units in another order, and the file's neurons moved with them."""
    model, content = tiny.model("llama"), tiny.neurons("llama")
    moved = tiny.model("llama")
    order = torch.randperm(tiny.D_FF["llama"], generator=torch.Generator().manual_seed(3))
    place = torch.argsort(order).numpy()
    for layer in moved.model.layers:
        for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
            projection.weight.data = projection.weight.data[order]
        layer.mlp.down_proj.weight.data = layer.mlp.down_proj.weight.data[:, order]
    own = content.neurons["ind_Latn"]
    keys = np.lexsort((place[own.index], own.layer))
    from lm_eval_amplify.neurons import LanguageNeurons, NeuronFile

    moved_content = NeuronFile(
        content.manifest.model_copy(update={"languages": ("ind_Latn",)}),
        {
            "ind_Latn": LanguageNeurons(
                own.layer[keys],
                place[own.index][keys].astype(np.int32),
                {name: values[keys] for name, values in own.statistics.items()},
            )
        },
    )
    with Amplifier(model, content, Intervention("set", 1, "max")).amplified("ind_Latn"):
        expected = logits(model)
    with Amplifier(moved, moved_content, Intervention("set", 1, "max")).amplified("ind_Latn"):
        torch.testing.assert_close(logits(moved), expected, atol=2e-5, rtol=1e-5)


def test_a_file_of_another_model_is_refused():
    with pytest.raises(NeuronFileError, match="not of this model: .*intermediate_size=48, the model has 40"):
        Amplifier(tiny.model("qwen2"), tiny.neurons("llama"), Intervention("scale", 2))
    content = tiny.neurons("llama")
    deeper = content.manifest.model_copy(update={"num_layers": 5})
    with pytest.raises(NeuronFileError, match="num_layers=5 layers, the model has 3"):
        Amplifier(tiny.model("llama"), type(content)(deeper, content.neurons), Intervention("scale", 2))
    unknown_width = content.manifest.model_copy(update={"intermediate_size": None})
    with pytest.raises(NeuronFileError, match=r"has neuron 4\d in layer \d, the model has 40 there"):
        Amplifier(tiny.model("qwen2"), type(content)(unknown_width, content.neurons), Intervention("scale", 2))


def test_what_cannot_be_folded_is_refused_or_hooked():
    content = tiny.neurons("llama")
    with pytest.raises(InterventionError, match="mode=fold with operation 'set'"):
        Amplifier(tiny.model("llama"), content, Intervention(), mode="fold")
    with pytest.raises(InterventionError, match=r"mode=folded \(did you mean 'fold'"):
        Amplifier(tiny.model("llama"), content, Intervention(), mode="folded")  # type: ignore[arg-type]
    model = tiny.model("llama")
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[1].mlp.down_proj)
    assert Amplifier(model, content, Intervention("scale", 2)).mode == "hook"
    with pytest.raises(ArchitectureError, match=r"mode=fold: model.layers.1.mlp cannot be folded"):
        Amplifier(model, content, Intervention("scale", 2), mode="fold")


def test_an_unknown_language_is_refused_before_anything_changes():
    model = tiny.model("llama")
    amplifier = Amplifier(model, tiny.neurons("llama"), Intervention("scale", 2))
    with pytest.raises(LanguageError, match="no language 'fra_Latn'"), amplifier.amplified("fra_Latn"):
        pass

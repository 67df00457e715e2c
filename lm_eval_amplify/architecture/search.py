"""Finds the feed-forward networks of a model's language model by their form and place, or says why it cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn
from transformers.pytorch_utils import Conv1D

from lm_eval_amplify.architecture.feed_forward import FeedForward
from lm_eval_amplify.architecture.forms import Form, form_of
from lm_eval_amplify.architecture.sites import FactorOfProduct, InputOfDown, OutputOfActivation, Site
from lm_eval_amplify.errors import ArchitectureError

_PLACE = re.compile(r"(?P<stack>.*?)\.?(?P<layer>\d+)(?:\.(?P<inside>.+))?")
_MAY_BE_FFN = re.compile(
    r"(?:^|\.)(?:mlp|ffn|ff|feed_?forward|fc_?\d|dense_\w+|(?:gate|up|down|gate_up)_proj|w[123io])(?:\.|$)"
)
_EXPERTS = re.compile(r"(?:^|\.)[^.]*expert[^.]*$")


class _Found(NamedTuple):
    layer: int
    path: str
    module: nn.Module
    form: Form


def find_feed_forwards(model: nn.Module) -> list[FeedForward]:
    """Return the FFNs of a model's language model, in the order in which they run.

    Of a multimodal model it is the language model inside; of an encoder-decoder, the encoder's FFNs come before the
    decoder's. A layer has one FFN, so that a decoder's FFN k is that of its layer k; where only some layers of a
    hybrid have one, it is that of the k-th of these.

    Raises:
        ArchitectureError: There are none of a known form, or more than one in a layer, or what may be another
            besides, or they cannot be told apart; or the model is a mixture of experts.
    """
    _refuse_experts(model)
    owners = Counter(id(child) for module in model.modules() for child in module._modules.values())  # noqa: SLF001  # named_children() counts a child once
    weights = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())  # noqa: SLF001  # the same
    blocks: list[FeedForward] = []
    parts = list(_parts(model))
    for number, (prefix, part) in enumerate(parts):
        for found in _in_layers(model, prefix, part):
            block = _feed_forward(len(blocks), found, owners, weights, model)
            blocks.append(block._replace(in_encoder=len(parts) > 1 and number == 0))
    return blocks


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of the language model with their paths: the encoder, if there is one, and the decoder."""
    name = type(model).__name__
    parts = [_decoder(model)]
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        encoder: nn.Module = model.get_encoder()  # type: ignore[operator]  # a module's attribute
        if not _reads_text(encoder):
            raise ArchitectureError(f"{name} has an encoder of {encoder.main_input_name}, which is not supported")
        while any(module is encoder for module in parts[0].modules()) and _decoder(parts[0]) is not parts[0]:
            parts = [_decoder(parts[0])]
        parts.insert(0, encoder)
    paths = {id(module): path for path, module in model.named_modules()}
    for part in parts:
        if id(part) not in paths:
            raise ArchitectureError(f"{name} does not say which part of it is the language model")
        yield paths[id(part)], part


def _decoder(model: nn.Module) -> nn.Module:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model  # type: ignore[operator]  # the same
    # ModernBERT calls its LM head so.
    return model if next(decoder.children(), None) is None else decoder


def _reads_text(module: nn.Module) -> bool:
    return getattr(module, "main_input_name", "input_ids") == "input_ids"


def _modules_of_text(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of a language model with their paths, without the towers inside it that read images or sound."""
    towers = [f"{path}." for path, module in part.named_modules() if path and not _reads_text(module)]
    for path, module in part.named_modules():
        if not f"{path}.".startswith(tuple(towers)):
            yield path, module


def _in_layers(model: nn.Module, prefix: str, part: nn.Module) -> list[_Found]:
    """The FFN of each layer of a stack, by layer."""
    name = type(model).__name__
    found: dict[str, dict[int, _Found]] = {}
    for path, module in _modules_of_text(part):
        form = form_of(module)
        if form is None:
            continue
        full = ".".join(filter(None, (prefix, path)))
        place = _PLACE.fullmatch(path)
        if (
            place is None
            or int(place["layer"]) in found.get(place["stack"], {})
            or not _is_alone(part, path, place["inside"] or "")
        ):
            raise ArchitectureError(
                f"{name} has a feed-forward network besides one in each layer ({full}), which is not supported"
            )
        found.setdefault(place["stack"], {})[int(place["layer"])] = _Found(int(place["layer"]), full, module, form)
    if len(found) > 1:
        raise ArchitectureError(
            f"{name} has feed-forward networks in several stacks of layers ({', '.join(sorted(found))}), "
            "which is not supported"
        )
    if not found:
        raise ArchitectureError(
            f"{name} ({_kind(model)}) has no feed-forward network of a known form; "
            "docs/architectures.md of the project lists what is supported"
        )
    [(stack, layers)] = found.items()
    for layer, module in part.get_submodule(stack).named_children():
        if int(layer) not in layers and any(_MAY_BE_FFN.search(path) for path, _ in module.named_modules()):
            raise ArchitectureError(
                f"{name} ({_kind(model)}) has feed-forward networks of a known form in {len(layers)} of its layers, "
                f"and what may be another in layer {layer}"
            )
    return [layers[layer] for layer in sorted(layers)]


def _is_alone(part: nn.Module, path: str, inside: str) -> bool:
    """Whether an FFN inside a module of its layer has nothing beside it there that might choose it or add to it."""
    if "." not in inside:
        return True
    holder = part.get_submodule(path.rpartition(".")[0])
    return all(
        child is part.get_submodule(path)
        or isinstance(child, nn.Dropout)
        or "Norm" in type(child).__name__
        or "attn" in name
        for name, child in holder.named_children()
    )


def _feed_forward(
    number: int, found: _Found, owners: Counter[int], weights: Counter[int], model: nn.Module
) -> FeedForward:
    form, module = found.form, found.module
    name = type(model).__name__
    down = module.get_submodule(form.down)
    if owners[id(module)] > 1 or owners[id(down)] > 1:
        raise ArchitectureError(f"{name} has layers that share a feed-forward network ({found.path})")
    unfoldable = None
    if form.between is not None:
        unfoldable = f"{form.between} lies between its activation and its down projection"
    elif isinstance(down.weight, nn.Parameter) and weights[id(down.weight)] > 1:
        unfoldable = "its down projection shares its weight"
    d_ff = _width(down, found.path)
    # A projection of twice the width yields a gate and a factor, whatever the form.
    is_plain = not form.is_gated and _width_out(module.get_submodule(form.inputs[0])) == d_ff
    site = _site(found, owners, name, is_plain=is_plain)
    return FeedForward(number, found.path, site, down, d_ff, unfoldable, is_plain=is_plain)


def _site(found: _Found, owners: Counter[int], name: str, *, is_plain: bool) -> Site:
    form, module = found.form, found.module
    down = module.get_submodule(form.down)
    if form.function is not None:
        gate, up = (module.get_submodule(path) for path in form.inputs)
        return FactorOfProduct(gate, up, down, form.function)
    if form.activation is None:
        return InputOfDown(down)
    activation = module.get_submodule(form.activation)
    if owners[id(activation)] == 1:
        return OutputOfActivation(activation)
    if not is_plain or form.between is not None:
        raise ArchitectureError(f"{name} shares one activation module among layers, which cannot be told apart")
    return InputOfDown(down)


def _refuse_experts(model: nn.Module) -> None:
    # By what is there: dense models of a family of mixtures have the same configuration.
    if any(_EXPERTS.search(path) for path, _ in model.named_modules()):
        raise ArchitectureError(f"{type(model).__name__} is a mixture of experts, which is not supported")


def _kind(model: nn.Module) -> str:
    return f"model_type {getattr(getattr(model, 'config', None), 'model_type', 'unknown')}"


def _width(down: nn.Module, path: str) -> int:
    if isinstance(down, Conv1D):
        return int(down.weight.shape[0])
    width = getattr(down, "in_features", None)
    if not isinstance(width, int):
        raise ArchitectureError(f"{path}: cannot tell the input width of its down projection {type(down).__name__}")
    return width


def _width_out(up: nn.Module) -> int | None:
    return int(up.weight.shape[1]) if isinstance(up, Conv1D) else getattr(up, "out_features", None)

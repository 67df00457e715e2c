"""What was evaluated, as the results say: the model, what was done to it, and its signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

_NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")
_NO_CONDITION = frozenset({*_NAMES, "device", "batch_size", "max_batch_size", "trust_remote_code", "parallelize"})
_AMPLIFIED = ("language", "operation", "statistic", "factor", "others", "layers", "positions")
_IN_AMPLIFY = frozenset({*_AMPLIFIED, "neurons", "mode", "preset", "others_operation", "others_factor", "dtype"})
_USUAL = {"layers": "all", "positions": "all"}
_HARMLESS = frozenset({"batch_size", "batch_sizes", "device", "use_cache", "bootstrap_iters", "model_args"})


class Entrant(NamedTuple):
    """A model in a condition."""

    model: str
    condition: str
    """What was done to it and to its prompts, for a reader; empty: nothing."""
    signature: str
    """How its numbers came to be, as far as the results say."""


def entrant_of(content: Mapping[str, Any]) -> Entrant:
    """Return what the results of a file are of."""
    config = content.get("config") or {}
    arguments = model_arguments(config.get("model_args"))
    amplify = config.get("amplify") or {}
    named = next((str(arguments[name]) for name in _NAMES if arguments.get(name)), None)
    model = named or amplify.get("neurons_of") or content.get("model_name") or config.get("model") or "unknown"
    rest = {name: value for name, value in arguments.items() if name not in _NO_CONDITION}
    parts = []
    if amplify.get("neurons"):
        parts.append(_amplified(amplify, arguments.get("neurons")))
        rest = {name: value for name, value in rest.items() if name not in _IN_AMPLIFY}
    parts += [f"{name}={value}" for name, value in rest.items()]
    parts += [name.replace("_", " ") for name in ("chat_template", "system_instruction") if content.get(f"{name}_sha")]
    return Entrant(str(model), ", ".join(parts), amplify.get("signature") or _signature(str(model), config, rest))


def model_arguments(given: Any) -> dict[str, Any]:
    """Return model arguments by name; older harness versions write them as they were typed.

    >>> model_arguments("pretrained=gpt2,dtype=float32")
    {'pretrained': 'gpt2', 'dtype': 'float32'}
    """
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (part.partition("=") for part in str(given or "").split(",") if "=" in part)
    return {name.strip(): value for name, _, value in pairs}


def settings_of(content: Mapping[str, Any]) -> dict[str, str]:
    """Return everything that may be the reason why two results differ, by name."""
    config = content.get("config") or {}
    amplify = config.get("amplify") or {}
    settings: dict[str, Any] = {
        f"model_args.{name}": v for name, v in model_arguments(config.get("model_args")).items()
    }
    settings |= {f"amplify.{name}": value for name, value in amplify.items() if name != "signature"}
    settings |= {name: value for name, value in config.items() if name not in _HARMLESS | {"amplify"}}
    names = ("lm_eval_version", "transformers_version", "chat_template_sha", "system_instruction_sha")
    settings |= {name: content.get(name) for name in (*names, "fewshot_as_multiturn")}
    return {name: _text(value) for name, value in settings.items() if value not in (None, "", {}, [], False)}


def _amplified(amplify: Mapping[str, Any], neurons: Any) -> str:
    """As ``neurons.safetensors: task, set max 1``; entries at their usual values are left out."""
    shown = [str(amplify[name]) for name in _AMPLIFIED if amplify.get(name) and amplify[name] != _USUAL.get(name)]
    file = PurePath(str(neurons)).name if neurons else str(amplify["neurons"])[:19]
    return f"{file}: {shown[0]}, {' '.join(shown[1:])}" if shown else file


def _signature(model: str, config: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
    """Of a model that has none: what identifies it among stock results."""
    revision = config.get("model_sha") or config.get("model_revision")
    dtype = str(config.get("model_dtype") or "").removeprefix("torch.")
    arguments = "+".join(f"{name}={value}" for name, value in sorted(rest.items()))
    parts = {"model": f"{model}@{revision}" if revision else model, "dtype": dtype, "args": arguments}
    return "|".join(f"{name}:{value}" for name, value in parts.items() if value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)

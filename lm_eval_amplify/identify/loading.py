"""Loads the model and the tokenizer that a user names."""

from __future__ import annotations

import sys
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import transformers
from torch import nn

from lm_eval_amplify.errors import ModelError, did_you_mean
from lm_eval_amplify.resources import embedded_model

DType: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
"""The type to compute in; ``auto`` is the checkpoint's own."""


class Loaded(NamedTuple):
    """A model in evaluation mode, and its tokenizer."""

    model: nn.Module
    tokenizer: Any


def load_model(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
    dtype: str = "auto",
) -> Loaded:
    """Load a causal language model of the Hub or a folder.

    Args:
        name: Hub name or folder, or ``babel`` for the embedded model.
        revision: Branch, tag or commit on the Hub.
        device: ``cpu``, ``cuda:1``, ...; by default the first GPU if there is one.
        device_map: ``auto`` spreads the model over all devices, as transformers does, instead of one ``device``.
        dtype: See :data:`DType`.

    Raises:
        ModelError: It cannot be had, or not be put there; says why.
    """
    if dtype not in get_args(DType):
        raise ModelError(f"dtype={dtype}{did_you_mean(dtype, get_args(DType))}: expected {', '.join(get_args(DType))}")
    if device_map is not None and device is not None:
        raise ModelError(f"device={device} and device_map={device_map}: give one of the two")
    place = _device(device)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    path = embedded_model(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, revision=revision)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=dtype, device_map=device_map
        )
        if device_map is None:
            model.to(place)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"cannot load model {name!r}: {reason}") from error
    model.config.name_or_path = name  # what is recorded; the embedded model's folder is this machine's
    return Loaded(model.eval(), tokenizer)


def _device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for a device
        raise ModelError(f"device={name}: {str(error).strip().splitlines()[0]}") from error
    return device

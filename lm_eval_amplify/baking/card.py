"""The model card of a baked checkpoint: what it is, how it was made, and how its numbers come to be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lm_eval_amplify.baking.changes import Changes
from lm_eval_amplify.baking.checkpoint import CARD, Checkpoint
from lm_eval_amplify.languages import language_name

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_FRONT = re.compile(r"---\s*\n(?P<yaml>.*?)\n---\s*\n", re.DOTALL)
_KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag")


def make_card(
    checkpoint: Checkpoint,
    languages: Sequence[str],
    signature: str,
    parts: Mapping[str, str],
    command: str,
    changes: Changes,
) -> str:
    """Return the card's text; the same baking gives the same.

    Args:
        checkpoint: What was baked into.
        languages: Whose neurons are amplified.
        signature: Of the amplified model.
        parts: Of the signature, in full.
        command: That bakes it again.
        changes: What became of the checkpoint.
    """
    front = _front_matter(checkpoint.folder / CARD)
    kept: dict[str, Any] = {name: front[name] for name in _KEPT if name in front}
    kept |= {"library_name": "transformers", "tags": ["lm-eval-amplify", "language-specific-neurons"]}
    if _REPOSITORY.fullmatch(checkpoint.name) and not Path(checkpoint.name).exists():
        kept["base_model"] = checkpoint.name
    kept["amplify"] = {"signature": signature, **parts}
    name = Path(checkpoint.name).name
    whose = " and ".join(map(language_name, languages))
    form = (
        "The weights are in the form of the original; only down projections differ."
        if changes.config is None
        else "It is a Llama checkpoint with biases in its feed-forward networks, which hold the constants: an engine "
        "for Llama with `mlp_bias` runs it."
    )
    grown = (
        f" Its networks have {changes.intermediate_size} neurons a layer; the new ones add the constants, or are zero."
        if changes.intermediate_size is not None
        else ""
    )
    rounding = (
        f"\nThe checkpoint's type, {parts['dtype']}, moves the constants by at most {changes.rounding:.2%}.\n"
        if changes.rounding > 1e-4
        else ""
    )
    return f"""---
{yaml.safe_dump(kept, sort_keys=True, allow_unicode=True).strip()}
---

# {name}, amplified: {whose}

{name} whose neurons of {whose} are amplified, in the weights: its plain forward pass is that of the amplified model
(the method: arXiv 2507.22581). {form}{grown}
{rounding}
Made by

    {command}

Evaluate it like any model:

    lm_eval --model hf --model_args pretrained=DIR --tasks TASKS

Signature: `{signature}`

The licence is that of the original.
"""


def _front_matter(path: Path) -> dict[str, Any]:
    """The metadata of a model's own card, if it has one that can be read."""
    try:
        match = _FRONT.match(path.read_text(encoding="utf-8"))
        front = yaml.safe_load(match["yaml"]) if match else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return front if isinstance(front, dict) else {}

"""Bakes an amplification into an ordinary checkpoint, tensor by tensor: no model is ever in memory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.amplifier import check_shape
from lm_eval_amplify.baking.card import make_card
from lm_eval_amplify.baking.changes import Changes, simplified
from lm_eval_amplify.baking.checkpoint import Checkpoint, open_checkpoint
from lm_eval_amplify.baking.columns import into_columns, obstacle
from lm_eval_amplify.baking.constants import into_llama
from lm_eval_amplify.baking.network import Network
from lm_eval_amplify.baking.tensor_files import FLOATS
from lm_eval_amplify.baking.writing import Report, write_checkpoint
from lm_eval_amplify.errors import CheckpointError, InterventionError
from lm_eval_amplify.intervention import Intervention, plan
from lm_eval_amplify.neurons import NeuronFile, locate_neurons, read_neurons
from lm_eval_amplify.provenance import neuron_file_hash, package_version, signature
from lm_eval_amplify.resources import embedded_model

MULTIPLE_OF = 64
"""What a d_ff that grows is a multiple of: at odd widths a GPU multiplies slowly, and a matrix cannot be shared out."""


class Baked(NamedTuple):
    """What became of a model."""

    folder: Path
    signature: str
    number_of_neurons: int
    """That the intervention changes."""
    intermediate_size: int | None
    """Neurons per layer (d_ff) that it grew to; None: it did not."""
    rounding: float
    """By how much, at most, the checkpoint's type moves a constant that is written into it, as a share of it."""
    warnings: tuple[str, ...]


def bake(
    model: str,
    neurons: str | os.PathLike[str] | NeuronFile,
    out: str | os.PathLike[str],
    *,
    language: str | Sequence[str],
    intervention: Intervention | None = None,
    revision: str | None = None,
    multiple_of: int = MULTIPLE_OF,
    report: Report | None = None,
) -> Baked:
    """Write a checkpoint whose plain forward pass is that of the amplified model.

    ``scale`` is baked into any architecture where it can be folded; ``set`` and ``add`` into plain feed-forward
    networks with a bias, and into models that a Llama checkpoint can express, which the checkpoint then is. What is in
    memory is the largest tensor that changes, a few times.

    Args:
        model: A folder, ``org/repo`` of the Hub, or ``babel``; with safetensors weights in a floating type.
        neurons: Its neuron file: a path, ``hf://org/repo/file[@revision]``, the name of a bundled one, or its content.
        out: Folder to make.
        language: Whose neurons: a code, several joined with ``+`` or in a sequence.
        intervention: What to do with them; by default ``set`` to ``max``.
        revision: Branch, tag or commit of the model on the Hub.
        multiple_of: What the width of networks that grow (``add``) is rounded up to.
        report: Gets a stage, how many bytes are written, and how many there are.

    Returns:
        What was done.

    Raises:
        AmplifyError: An argument is wrong, the model cannot be baked, or the folder not be written; then there is none.
    """
    intervention = intervention or Intervention()
    _check(intervention, multiple_of)
    out = Path(out)
    _check_out(out, model)
    content = neurons if isinstance(neurons, NeuronFile) else read_neurons(locate_neurons(neurons))
    intervention.check_against(content)
    names = language.split("+") if isinstance(language, str) else language
    targets = tuple(dict.fromkeys(content.resolve_language(name) for name in names))
    checkpoint = open_checkpoint(model, revision)
    network = Network(checkpoint)
    check_shape(content, network.blocks)
    edits = plan(intervention, content, targets)
    changes = _changes(network, checkpoint, edits, multiple_of)
    number = sum(len(edit.index) for edit in edits)

    parts = _signature_parts(checkpoint, network, content, targets, intervention)
    source = "NEURONS" if isinstance(neurons, NeuronFile) else os.fspath(neurons)
    command = _command(model, source, targets, intervention, revision, multiple_of)
    card = make_card(checkpoint, targets, signature(parts), parts, command, changes)
    write_checkpoint(checkpoint, changes, card, out, report or (lambda _stage, _done, _total: None))
    return Baked(
        out,
        signature(parts),
        number,
        changes.intermediate_size,
        changes.rounding,
        _warnings(model, content, targets, intervention, number),
    )


def _check(intervention: Intervention, multiple_of: int) -> None:
    if intervention.asks_for_positions:
        raise InterventionError(
            "a checkpoint acts at all positions and knows no statistics of its input: positions=all and a statistic of "
            "the neuron file can be baked"
        )
    if isinstance(multiple_of, bool) or not isinstance(multiple_of, int) or multiple_of < 1:
        raise InterventionError(f"multiple_of={multiple_of!r}: expected a whole number from 1")


def _check_out(out: Path, model: str) -> None:
    if out.exists() or out.is_symlink():
        source = Path(embedded_model(model))
        which = "is the model's own folder" if source.exists() and out.exists() and out.samefile(source) else "exists"
        raise CheckpointError(f"cannot bake into {out}: it {which}; give the path of a new folder")
    if not out.parent.is_dir():
        raise CheckpointError(f"cannot bake into {out}: there is no folder {out.parent}")


def _changes(network: Network, checkpoint: Checkpoint, edits: Sequence[Any], multiple_of: int) -> Changes:
    simple = simplified(edits)
    why = obstacle(network, simple)
    if why is None:
        return into_columns(network, simple)
    return into_llama(network, checkpoint, simple, why, multiple_of=multiple_of)


def _signature_parts(
    checkpoint: Checkpoint,
    network: Network,
    content: NeuronFile,
    targets: Sequence[str],
    intervention: Intervention,
) -> dict[str, str]:
    parts = {"model": checkpoint.identity, "neurons": f"sha256:{neuron_file_hash(content)}"}
    if content.manifest.model:
        parts["neurons_of"] = content.manifest.model
    _, weight = network.stored(f"{network.down(network.blocks[0])}.weight")
    dtype = str(FLOATS[weight.dtype]).removeprefix("torch.")
    parts |= {"language": "+".join(targets), **intervention.signature_parts, "mode": "bake"}
    return parts | {"dtype": dtype, "version": package_version()}


def _command(
    model: str,
    neurons: str,
    targets: Sequence[str],
    intervention: Intervention,
    revision: str | None,
    multiple_of: int,
) -> str:
    given = {
        "model": model,
        "revision": revision,
        "neurons": neurons,
        "language": "+".join(targets),
        "operation": intervention.operation,
        "factor": repr(intervention.factor),
        "statistic": intervention.needs_statistic
        or (None if intervention.statistic == "max" else intervention.statistic),
        "others-operation": intervention.others_operation,
        "others-factor": None if intervention.others_factor is None else repr(intervention.others_factor),
        "layers": None if intervention.layers == "all" else intervention.layers,
        "multiple-of": None if multiple_of == MULTIPLE_OF else str(multiple_of),
    }
    options = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value is not None]
    return " ".join(["lm-eval-amplify bake", *options, "--out DIR"])


def _warnings(
    model: str, content: NeuronFile, targets: Sequence[str], intervention: Intervention, number: int
) -> tuple[str, ...]:
    found = []
    recorded = content.manifest.model
    if recorded is not None and embedded_model(recorded) != embedded_model(model):
        found.append(f"the neurons were found in {recorded} and are baked into {model}; both are recorded")
    if intervention.is_identity:
        found.append("the intervention changes nothing: these are the original weights")
    elif not number:
        found.append(
            f"no neuron of {'+'.join(targets)} in layers={intervention.layers}: these are the original weights"
        )
    return tuple(found)

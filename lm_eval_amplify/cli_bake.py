"""The command ``lm-eval-amplify bake``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lm_eval_amplify.cli_options import Revision


def bake(
    model: Annotated[str, typer.Option(help="Model on the Hub, or its folder; its weights as safetensors.")],
    neurons: Annotated[
        str, typer.Option(help="Neuron file: path, hf://org/repo/file[@revision], or the name of a bundled one.")
    ],
    language: Annotated[str, typer.Option(help="Whose neurons: ind_Latn; several joined with +.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    operation: Annotated[str | None, typer.Option(help="set, add or scale.  [default: set]")] = None,
    factor: Annotated[
        float | None, typer.Option(help="A number; times the statistic, or with scale the activation.  [default: 1]")
    ] = None,
    statistic: Annotated[
        str | None, typer.Option(help="Of set and add: a statistic of the neuron file, or one.  [default: max]")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="The three by a name: paper_p_max, paper_p_median or paper_zero.")
    ] = None,
    others_operation: Annotated[
        str | None, typer.Option(help="The same on the neurons of all other languages of the file.")
    ] = None,
    others_factor: Annotated[float | None, typer.Option(help="Its factor.")] = None,
    layers: Annotated[str, typer.Option(help="Layers from 0, as 0-5+20.")] = "all",
    multiple_of: Annotated[
        int, typer.Option(min=1, help="Of add: what the width of the networks, which grow, is a multiple of.")
    ] = 64,
    revision: Revision = None,
) -> None:
    """Write an ordinary checkpoint whose plain forward pass is that of the amplified model.

    Any engine runs it. scale is baked into any architecture where that is exact; set and add into models that a Llama
    checkpoint can express (Llama, Qwen2, Mistral, ...), and into plain networks with biases (GPT-2, BLOOM, OPT).
    """
    from lm_eval_amplify.baking import bake as write
    from lm_eval_amplify.presets import make_intervention
    from lm_eval_amplify.progress import progress_bar

    intervention = make_intervention(
        preset=preset,
        operation=operation,  # type: ignore[arg-type]  # checked there
        statistic=statistic,
        factor=factor,
        others_operation=others_operation,
        others_factor=others_factor,
        layers=layers,
    )
    with progress_bar("bytes") as report:
        baked = write(
            model,
            neurons,
            out,
            language=language,
            intervention=intervention,
            revision=revision,
            multiple_of=multiple_of,
            report=report,
        )
    for warning in baked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{baked.number_of_neurons} neurons baked in")
    if baked.intermediate_size is not None:
        typer.echo(f"the networks have grown to {baked.intermediate_size} neurons a layer")
    if baked.rounding > 1e-4:
        typer.echo(f"the checkpoint's type moves the constants by at most {baked.rounding:.2%}")
    typer.echo(f"signature: {baked.signature}")
    typer.echo(f"written to {baked.folder}: lm_eval --model hf --model_args pretrained={baked.folder} ...")

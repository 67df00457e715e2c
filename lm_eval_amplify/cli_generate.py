"""The command ``lm-eval-amplify generate``: what one tries first."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lm_eval_amplify.cli_options import Device, DeviceMap, DType, Revision

if TYPE_CHECKING:
    from lm_eval_amplify.intervention import Intervention
    from lm_eval_amplify.langid import Identifier


def generate(
    prompt: Annotated[str, typer.Argument(help="What the model goes on from.")],
    neurons: Annotated[str, typer.Option(help="Path, hf://org/repo/file[@revision], or the name of a bundled file.")],
    language: Annotated[str, typer.Option(help="Whose neurons: a code or an English name; several joined with +.")],
    factor: Annotated[list[float] | None, typer.Option(help="May be given several times.  [default: 1]")] = None,
    operation: Annotated[str | None, typer.Option(help="set, add or scale.  [default: set]")] = None,
    statistic: Annotated[
        str | None, typer.Option(help="Of the neuron file, one, or a test-time statistic.  [default: max]")
    ] = None,
    preset: Annotated[
        list[str] | None, typer.Option(help="paper_p_max, ... instead of the three; may be given several times.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Layers and ranges joined with +, as 0-5+20.")] = "all",
    positions: Annotated[str, typer.Option(help="all, prompt or generated.")] = "all",
    model: Annotated[
        str | None, typer.Option(help="Model on the Hub, or its folder; by default the one that the file names.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens to write.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of each side, where tokens are drawn.")] = 0,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put the prompt into the user's turn.")
    ] = False,
    lid: Annotated[
        str, typer.Option(help="Language identifier: lid.176, py3langid, a fastText model, hf://..., or none.")
    ] = "lid.176",
    revision: Revision = None,
    device: Device = None,
    device_map: DeviceMap = None,
    dtype: DType = "auto",
) -> None:
    """Write on from a prompt, unamplified and amplified, and say in which language each is."""
    from lm_eval_amplify.neurons import locate_neurons, read_neurons

    interventions = _interventions(factor, operation, statistic, preset, layers=layers, positions=positions)
    content = read_neurons(locate_neurons(neurons))
    for one in interventions:
        one.check_against(content)
    languages = [content.resolve_language(name) for name in language.split("+")]
    identifier = _identifier(lid)

    import torch

    from lm_eval_amplify.errors import InterventionError
    from lm_eval_amplify.identify.loading import load_model
    from lm_eval_amplify.side_by_side import language_said, prompt_inputs, sides_of, write

    name = model or content.manifest.model
    if name is None:
        raise InterventionError("give --model <name>: the neuron file names no model")
    loaded = load_model(name, revision=revision, device=device, device_map=device_map, dtype=dtype)
    inputs = prompt_inputs(loaded, prompt, chat_template=chat_template)
    sides = sides_of(loaded, content, interventions)
    options = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    width = max(len(side.name) for side in sides)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # letters that its encoding lacks
    for side in sides:
        typer.echo(f"{side.name:<{width}}  {prompt}", nl=False)
        torch.manual_seed(seed)
        text = write(loaded, side, languages, inputs, _show, max_new_tokens=max_new_tokens, **options)
        typer.echo(f"\n{'':<{width}}  [{language_said(text, identifier)}]" if identifier is not None else "")


def _interventions(
    factors: list[float] | None,
    operation: str | None,
    statistic: str | None,
    presets: list[str] | None,
    **further: str,
) -> list[Intervention]:
    """One for each factor, or for each preset."""
    from lm_eval_amplify.presets import make_intervention

    shared: dict[str, object] = {"operation": operation, "statistic": statistic, **further}
    if presets:
        first = factors[0] if factors else None
        return [make_intervention(preset=one, factor=first, **shared) for one in presets]  # type: ignore[arg-type]  # checked there
    return [make_intervention(factor=one, **shared) for one in factors or [1.0]]  # type: ignore[arg-type]  # checked there


def _identifier(lid: str) -> Identifier | None:
    if lid == "none":
        return None
    from lm_eval_amplify.langid import load_identifier

    return load_identifier(lid)


def _show(piece: str) -> None:
    typer.echo(" ".join(piece.split("\n")), nl=False)
    sys.stdout.flush()

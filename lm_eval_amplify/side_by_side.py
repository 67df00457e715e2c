"""What a model writes after a prompt, unamplified and under interventions, token by token, with its language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, NamedTuple

import torch
from transformers import TextStreamer

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.errors import InterventionError
from lm_eval_amplify.identify.loading import Loaded
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.langid import Identifier, why_no_language
from lm_eval_amplify.languages import language_name
from lm_eval_amplify.neurons import NeuronFile

Show = Callable[[str], None]


class Side(NamedTuple):
    """The model as it is, or under one intervention."""

    name: str
    amplifier: Amplifier | None


def sides_of(loaded: Loaded, neurons: NeuronFile, interventions: Sequence[Intervention]) -> list[Side]:
    """Return the unamplified side and one for each intervention.

    Raises:
        AmplifyError: The neuron file is not of the model, or lacks what an intervention needs.
    """
    amplified = [Side(_named(one), Amplifier(loaded.model, neurons, one)) for one in interventions]
    return [Side("unamplified", None), *amplified]


def prompt_inputs(loaded: Loaded, prompt: str, *, chat_template: bool = False) -> dict[str, torch.Tensor]:
    """Return the prompt's tokens and attention mask, ``[1, pos]``, where the model takes them.

    Raises:
        InterventionError: There is no token, or no chat template.
    """
    tokenizer: Any = loaded.tokenizer
    if chat_template:
        if not tokenizer.chat_template:
            raise InterventionError("the tokenizer has no chat template: leave --chat-template out")
        turn = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        encoded = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    else:
        encoded = tokenizer(prompt, return_tensors="pt")
    if not encoded["input_ids"].numel():
        raise InterventionError("the prompt has no token: give some words to go on from")
    device = next(loaded.model.parameters()).device
    return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}


def write(
    loaded: Loaded, side: Side, languages: Sequence[str], inputs: dict[str, torch.Tensor], show: Show, **options: Any
) -> str:
    """Return what the model writes, the new text alone; ``show`` gets it in parts as it comes.

    Args:
        loaded: The model with its tokenizer.
        side: Which.
        languages: Whose neurons are amplified together.
        inputs: See :func:`prompt_inputs`.
        show: Called with each part.
        **options: Of transformers' ``generate``.
    """
    model: Any = loaded.model
    pieces: list[str] = []

    def take(piece: str) -> None:
        pieces.append(piece)
        show(piece)

    streamer = _Streamer(loaded.tokenizer, take)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for context in _amplified(side.amplifier, languages, inputs["attention_mask"]):
            stack.enter_context(context)
        model.generate(**inputs, streamer=streamer, **options)
    return "".join(pieces)


def language_said(text: str, identifier: Identifier) -> str:
    """Return the language of a text for people: its name and probability, or why it has none."""
    why = why_no_language(text)
    if why is not None:
        return f"no language: {why}"
    guess = identifier.identify(text)
    return f"{language_name(guess.language)} {guess.probability:.2f}"


class _Streamer(TextStreamer):  # type: ignore[misc]  # transformers is untyped here
    def __init__(self, tokenizer: Any, take: Show) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._take = take

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002  # as called
        self._take(text)


def _amplified(
    amplifier: Amplifier | None, languages: Sequence[str], prompt: torch.Tensor
) -> Iterator[AbstractContextManager[None]]:
    if amplifier is None:
        yield nullcontext()
        return
    yield amplifier.amplified(*languages)
    if amplifier.asks_for_positions:
        yield amplifier.generating(prompt)


def _named(intervention: Intervention) -> str:
    statistic = "" if intervention.operation == "scale" else f" {intervention.statistic}"
    return f"{intervention.operation}{statistic} x {intervention.factor:g}"

"""What the amplifier does with every architecture of the installed transformers, checked on tiny models.

    python tests/matrix.py

writes docs/architectures.md.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import by_hand
import numpy as np
import torch
import transformers
from every_architecture import MAPPINGS, VOCABULARY, Architecture, architectures, build
from torch import nn

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.architecture import find_feed_forwards, fold_obstacle
from lm_eval_amplify.errors import ArchitectureError
from lm_eval_amplify.identify.network import Network
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile
from lm_eval_amplify.scoring.batches import Budget
from lm_eval_amplify.scoring.engine import Engine
from lm_eval_amplify.scoring.forward import Forward
from lm_eval_amplify.scoring.probe import probe
from lm_eval_amplify.scoring.requests import Scored

IDS = np.array([[37, 41, 50, 43, 33], [39, 60, 44, 41, 52]])  # none is special: see every_architecture
FACTORS = {"set": 1.5, "add": -0.75, "scale": 2.5}


class Outcome(NamedTuple):
    """What became of an architecture."""

    architecture: Architecture
    status: Literal["supported", "refused", "not built", "not run"]
    reason: str = ""
    fold_obstacle: str | None = None
    identify_refusal: str | None = None
    scoring: str = ""


@cache
def examine(architecture: Architecture) -> Outcome:
    """Build it, find its networks, and check every operation; an AssertionError is a wrong result."""
    try:
        model = build(architecture)
    except Exception as error:  # noqa: BLE001  # whatever transformers raises is the answer
        return Outcome(architecture, "not built", _said(error))
    try:
        blocks = find_feed_forwards(model)
    except ArchitectureError as error:
        return Outcome(architecture, "refused", str(error))
    _enlarge(model, blocks)
    try:
        plain = logits(model)
    except Exception as error:  # noqa: BLE001  # the same
        return Outcome(architecture, "not run", _said(error))
    check(model, blocks, plain)
    refusal = check_identification(model, blocks)
    check_positions(model, blocks, plain, refusal)
    return Outcome(architecture, "supported", "", fold_obstacle(blocks[0]), refusal, check_scoring(model, blocks))


def check(model: nn.Module, blocks: list, plain: torch.Tensor) -> None:
    """Each operation equals the forward changed by hand, folding equals hooking, and nothing is left behind."""
    content = neurons(blocks)
    own = content.neurons["ind_Latn"]
    found = by_hand.places(model, blocks)
    for operation, factor in FACTORS.items():
        with by_hand.changed(found, definition(own, operation, factor)):
            expected = logits(model)
        assert not close(expected, plain, 1e-3), f"{operation} by hand changes nothing"
        amplifier = Amplifier(model, content, Intervention(operation, factor, "max"), mode="hook")
        with amplifier.amplified("ind_Latn"):
            hooked = logits(model)
        assert close(hooked, expected, 2e-5), f"{operation} by hook differs from {operation} by hand"
    if fold_obstacle(blocks[0]) is None:
        with Amplifier(model, content, Intervention("scale", FACTORS["scale"]), mode="fold").amplified("ind_Latn"):
            assert close(logits(model), hooked, 2e-5), "fold differs from hook"
    every = neurons(blocks, share=1.0)
    gone: list[torch.Tensor] = []
    with (
        Amplifier(model, every, Intervention("set", 0.0)).amplified("ind_Latn"),
        by_hand.changed(found, lambda _layer, hidden, _factor: gone.append(hidden) or hidden),
    ):
        logits(model)
    assert gone
    assert not any(hidden.any() for hidden in gone), "neurons set to 0 still reach a down projection"
    assert torch.equal(logits(model), plain), "something is left behind"


AT = torch.tensor([[True, True, False, False, False], [False, False, False, True, True]])
"""Where positions are checked: those of a prompt in one row, generated ones in the other."""


def check_positions(model: nn.Module, blocks: list, plain: torch.Tensor, refusal: str | None) -> None:
    """Each operation at some positions equals the forward changed by hand there, or is refused like identification.

    Of an encoder-decoder the positions are layers: the decoder's, because not every decoder looks at its encoder.
    """
    positions = "generated" if model.config.is_encoder_decoder else "prompt"
    content = neurons(blocks)
    own = content.neurons["ind_Latn"]
    found = by_hand.places(model, blocks)
    for operation, factor in FACTORS.items():
        intervention = Intervention(operation, factor, "max", positions=positions)
        if refusal is not None and not model.config.is_encoder_decoder:
            _assert_refused(model, content, intervention)
            continue
        amplifier = Amplifier(model, content, intervention)
        telling = amplifier.on(AT) if amplifier.asks_for_positions else nullcontext()
        with amplifier.amplified("ind_Latn"), telling:
            amplified = logits(model)
        whole = definition(own, operation, factor)

        def change(layer, hidden, up, whole=whole, told=amplifier.asks_for_positions):
            if not told:
                return hidden if blocks[layer].in_encoder else whole(layer, hidden, up)
            at = AT.reshape(hidden.shape[:-1]).unsqueeze(-1)
            return torch.where(at, whole(layer, hidden, up), hidden)

        with by_hand.changed(found, change):
            expected = logits(model)
        assert not close(expected, plain, 1e-4), f"{operation} at positions by hand changes nothing"
        assert close(amplified, expected, 2e-5), f"{operation} at positions differs from {operation} by hand"
    assert torch.equal(logits(model), plain), "something is left behind"


def _assert_refused(model: nn.Module, content: NeuronFile, intervention: Intervention) -> None:
    try:
        Amplifier(model, content, intervention)
    except ArchitectureError:
        return
    raise AssertionError("identification refuses the model, positions do not")


# Rows of two lengths, one padded, with positions that do not count.
TEXTS = np.where(np.arange(5) < [[5], [3]], IDS, 38)
IS_COUNTED = np.array([[True] * 5, [False, True, True, False, False]])


def check_identification(model: nn.Module, blocks: list) -> str | None:
    """Counts of positive activations are those of each row by itself; or the reason why they are refused."""
    try:
        counted = counts(model, blocks)
    except ArchitectureError as error:
        return str(error)
    expected = {block.layer: torch.zeros(block.d_ff) for block in blocks}
    for row, length in enumerate((5, 3)):
        is_counted = torch.from_numpy(IS_COUNTED[row, :length])

        def see(layer, hidden, factor, is_counted=is_counted):
            expected[layer] += (hidden * factor > 0).reshape(len(is_counted), -1)[is_counted].sum(0)
            return hidden

        with by_hand.changed(by_hand.places(model, blocks), see):
            logits(model, torch.from_numpy(TEXTS[row : row + 1, :length]))
    for layer, own in counted.items():
        assert torch.equal(own, expected[layer]), f"identification miscounts layer {layer}"
    return None


def counts(model: nn.Module, blocks: list) -> dict[int, torch.Tensor]:
    """How often each neuron of each layer is active in the counted positions, as identification sees it."""
    network = Network(model)
    found = {block.layer: torch.zeros(block.d_ff) for block in blocks}
    looks = {
        layer: lambda activation, counted, layer=layer: found[layer].add_((activation[counted.flatten()] > 0).sum(0))
        for layer in found
    }
    with network.looking(looks):
        network.run(TEXTS, IS_COUNTED)
    return found


OPTIONS = [[12], [12, 13], [14, 12, 13]]
CONTEXTS = [[*range(20, 32)], [*range(20, 32), 40, 41], [*range(20, 26), 50], [45]]


def check_scoring(model: nn.Module, blocks: list) -> str:
    """What packed scoring shares; its answers, amplified, are those of a pass over each request alone."""
    if model.config.is_encoder_decoder:
        return "as hf"
    amplifier = Amplifier(model, neurons(blocks), Intervention("set", FACTORS["set"], "max"), mode="hook")
    amplified = partial(amplifier.amplified, "ind_Latn")
    forward = Forward(model, torch.device("cpu"))
    text_config = model.config.get_text_config()
    abilities, _ = probe(
        forward, partial(logits, model), [nullcontext, amplified],
        vocabulary=VOCABULARY, max_length=64, config=text_config,
    )  # fmt: skip
    if abilities is None:
        return "as hf"
    scored = [Scored.cut(context, option, 64) for context in CONTEXTS for option in OPTIONS]
    with amplified():
        answers = dict(Engine(forward, abilities).score(scored, Budget(24, 24)))
        for number, one in enumerate(scored):
            alone = logits(model, torch.from_numpy(one.tokens)[None])[0, one.first :].log_softmax(-1)
            expected = float(alone.gather(1, torch.from_numpy(one.targets)[:, None]).sum())
            off = abs(answers[number].loglikelihood - expected)
            assert off <= 2e-4 + 1e-5 * abs(expected), f"packed scoring is off by {off}"
    shared = "contexts and prefixes" if abilities.cache else "contexts" if abilities.trees else ""
    return shared if forward.only_selected else f"{shared}, all logits"


def definition(own: LanguageNeurons, operation: str, factor: float):
    """The operation on neurons, on h and u."""
    statistic = own.statistics["max"]

    def change(layer, hidden, up):
        hidden = hidden.clone()
        for index, value in zip(own.index[own.layer == layer], statistic[own.layer == layer], strict=True):
            one = up[..., index] if isinstance(up, torch.Tensor) else up
            before = hidden[..., index]
            hidden[..., index] = {
                "set": factor * float(value) * one,
                "add": before + factor * float(value) * one,
                "scale": factor * before,
            }[operation]
        return hidden

    return change


def neurons(blocks: list, share: float = 0.25) -> NeuronFile:
    """Random neurons of every layer, with a statistic."""
    random = np.random.default_rng(5)
    index = [np.sort(random.choice(block.d_ff, int(share * block.d_ff), replace=False)) for block in blocks]
    layer = np.repeat(np.arange(len(blocks)), list(map(len, index))).astype(np.int32)
    statistic = random.normal(1, 1, len(layer)).astype(np.float32)
    own = LanguageNeurons(layer, np.concatenate(index).astype(np.int32), {"max": statistic})
    manifest = Manifest(num_layers=len(blocks), method="random", package_version="0", languages=("ind_Latn",))
    return NeuronFile(manifest, {"ind_Latn": own})


@torch.no_grad()
def logits(model: nn.Module, ids: torch.Tensor | None = None) -> torch.Tensor:
    """The model's logits of a text, of the same text in encoder and decoder."""
    ids = torch.from_numpy(IDS) if ids is None else ids
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    output = model(input_ids=ids, **more)
    return (output.logits if hasattr(output, "logits") else output[0]).float()


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Whether they differ by at most a share of the largest."""
    assert torch.isfinite(other).all()
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


@torch.no_grad()
def _enlarge(model: nn.Module, blocks: list) -> None:
    """Give the networks weights that make them count beside the rest, and a head that is not all zeros."""
    generator = torch.Generator().manual_seed(1)
    for block in blocks:
        for name, parameter in model.get_submodule(block.name).named_parameters():
            if parameter.dim() == 2 and "att" not in name:
                parameter.normal_(0, 0.4, generator=generator)
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear) and not head.weight.any():
        head.weight.normal_(0, 0.2, generator=generator)


def _said(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:160]}{'...' if len(said) > 160 else ''}"


DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
_MADE_WITH = "Made by `python tests/matrix.py` with transformers {version}."


def render(outcomes: list[Outcome]) -> str:
    """The page about architectures."""
    by_status: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_status[outcome.status].append(outcome)
    titles = {"causal": "causal LM", "image-text": "image-text-to-text", "seq2seq": "sequence-to-sequence"}
    counts = "\n".join(
        f"| {title} | "
        + " | ".join(
            str(sum(outcome.architecture.mapping == mapping for outcome in by_status[status]))
            for status in ("supported", "refused", "not run", "not built")
        )
        + " |"
        for mapping, title in [(mapping, titles[mapping]) for mapping in MAPPINGS]
    )
    supported = "\n".join(
        f"| {one.architecture.name} | {one.architecture.model_type} | {one.fold_obstacle or 'yes'} "
        f"| {_short(one.identify_refusal, one) or 'yes'} | {one.scoring or 'logits'} |"
        for one in by_status["supported"]
    )
    return _PAGE.format(
        made_with=_MADE_WITH.format(version=transformers.__version__),
        counts=counts,
        total=len(outcomes),
        supported_number=len(by_status["supported"]),
        supported=supported,
        refused=_grouped(by_status["refused"]),
        not_run=_grouped(by_status["not run"]),
        not_built=_grouped(by_status["not built"]),
    )


def made_with_installed(page: str) -> bool:
    """Whether a page was made with the installed version of transformers."""
    return _MADE_WITH.format(version=transformers.__version__) in page


def _grouped(outcomes: list[Outcome]) -> str:
    """Architectures by reason, the most frequent first."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        by_reason[_short(outcome.reason, outcome)].append(outcome.architecture.name)
    ordered = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    return "\n".join(f"- **{reason}** ({len(names)}): {', '.join(names)}" for reason, names in ordered)


def _short(reason: str | None, outcome: Outcome) -> str:
    reason = (reason or "").replace(f"{outcome.architecture.name} ", "", 1)
    reason = reason.partition("; docs/")[0]
    return reason.replace(f"(model_type {outcome.architecture.model_type}) ", "").replace("|", "\\|")


_PAGE = """# Architectures

{made_with} The page is the result of a test: each architecture of the
mappings of transformers is built with random weights and a few dozen neurons from its configuration, and

- **supported** means: `set`, `add` and `scale` by hook give the logits of a forward pass changed by hand below the
  modules (tests/by_hand.py), everywhere and at chosen positions, for `scale` folding gives those of hooking, all
  neurons set to 0 leave nothing to the down projection, and afterwards the model gives its own logits bit for bit;
- **refused** means: one line says why, and nothing runs;
- **not run**: what it needs is not a text alone, so that nothing was checked;
- **not built**: transformers itself fails to build it from a small configuration here.

| mapping | supported | refused | not run | not built |
| --- | --- | --- | --- | --- |
{counts}

{total} architectures, {supported_number} supported. Models of other code than transformers' are known by the same
structure.

## What a layer is

Layer k of a neuron file is the k-th feed-forward network in the order in which the language model runs them: in a
decoder, that of its layer k; in an encoder-decoder with n encoder layers, 0 to n-1 are the encoder's, n and above the
decoder's; in a hybrid where only some layers have one, the layers without are not counted. Of a multimodal model only
the language model has neurons; the towers that read images or sound are left alone.

## Supported

Fold: whether `mode=fold` (and `auto` for `scale`) scales weights; else why not, and hooks do it. Identify: whether
`lm-eval-amplify identify` can count in it; else why not. Score: what `scorer=packed` computes once for all
requests that have it in common, found by a probe at load and checked against a pass over each request alone: the
contexts of several options in a row, and prefixes across rows; `logits`: nothing, but logits only where something is
scored; `as hf`: the harness's own scoring.

Decoders in which nothing can be identified are refused with `positions` other than `all` and with test-time
statistics: activations that do not come token by token have no positions. (Of an encoder-decoder the encoder is
`prompt` and the decoder `generated`.) Quantised, sharded, tied and offloaded weights and adapters on the down
projection are never folded, whatever the architecture.

| architecture | model_type | fold | identify | score |
| --- | --- | --- | --- | --- |
{supported}

## Refused

{refused}

## Not run

{not_run}

## Not built

{not_built}
"""


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(render([examine(architecture) for architecture in architectures()]))

"""The decoding loop: what transformers' own does greedily, for ever fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from lm_eval.models.utils_hf import MultiTokenEOSCriteria
from transformers import LogitsProcessor
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMode, logits_process
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.modeling_outputs import CausalLMOutputWithPast

from lm_eval_amplify.generation.ends import Ends, StopString, TokenTexts
from lm_eval_amplify.generation.prompts import PackedPrompts
from lm_eval_amplify.generation.rows import give_room, keep_rows

RowsLeft: TypeAlias = Callable[[torch.Tensor], None]
"""Told which of the rows before it, int64 ``[kept]``, later forward passes are of."""

_BY_ROW = (
    logits_process.ExponentialDecayLengthPenalty,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.InfNanRemoveLogitsProcessor,
    logits_process.LogitNormalization,
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
    logits_process.NoBadWordsLogitsProcessor,
    logits_process.NoRepeatNGramLogitsProcessor,
    logits_process.RepetitionPenaltyLogitsProcessor,
    logits_process.SequenceBiasLogitsProcessor,
    logits_process.SuppressTokensAtBeginLogitsProcessor,
    logits_process.SuppressTokensLogitsProcessor,
)
"""Transformers' processors whose result for a row depends on that row alone; others may know rows by their number."""


class UnsuitedError(Exception):
    """The loop cannot run a generation that transformers' own can; says why. It has changed nothing."""


class OfRows(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """A processor of logits that is told which rows of the batch it is given."""

    rows: torch.Tensor | None = None
    """Their numbers, int64 ``[given]``; None: all rows."""


class GreedyLoop:
    """Given to ``model.generate`` as ``custom_generate``, which prepares everything and leaves the decoding to it.

    Every step is transformers' own: the model's preparation of its inputs, its forward pass, the processors of logits,
    the argmax; but the prompts may be read by packed rows. A row that has ended leaves the batch with its part of the
    cache. The text that follows its end differs from that of transformers' loop, where it is not padding; the harness
    cuts it off.

    Args:
        texts: Of the tokenizer.
        rows_left: Called where rows have left. Who follows the rows of a generation's forward passes, to act at some of
            their positions or by what was computed for them earlier, follows their leaving here; the passes
            themselves are seen by hooks, as in transformers' loop: the prompts, then one position at a time.
        prompts: Reads the prompts, where it can; None: they are read by one pass over padded rows.
    """

    def __init__(
        self, texts: TokenTexts, rows_left: RowsLeft | None = None, prompts: PackedPrompts | None = None
    ) -> None:
        self._texts = texts
        self._rows_left = rows_left
        self.prompts = prompts

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Sequence[Any],
        generation_config: Any,
        **state: Any,
    ) -> torch.Tensor:
        """Generate; as transformers calls it.

        Returns:
            ``[rows, prompt + longest]``, padded on the right.

        Raises:
            UnsuitedError: It must be left to transformers.
        """
        _check(model, generation_config, logits_processor)
        rows, prompt = input_ids.shape
        ends = self._ends(stopping_criteria, rows, prompt)
        present = list(range(rows))
        logits = None if self.prompts is None else self.prompts.read(input_ids, state)
        if logits is None:
            outputs = model._prefill(input_ids, generation_config, state)  # noqa: SLF001  # what custom loops are made of
        else:
            outputs = CausalLMOutputWithPast(logits=logits)
        state = model._update_model_kwargs_for_generation(outputs, state)  # noqa: SLF001  # as there
        _prepare_cache(state, prompt + ends.limit - 1)
        texts = input_ids  # [present rows, positions so far]
        with model._optimize_model_for_decode():  # noqa: SLF001  # as there
            while True:
                chosen = _choose(outputs.logits, texts, logits_processor)
                del outputs  # the prompt's logits may be large
                texts = torch.cat([texts, chosen.unsqueeze(1)], dim=1)
                going_on = [
                    place
                    for place, (row, token) in enumerate(zip(present, chosen.tolist(), strict=True))
                    if not ends.add(row, token)
                ]
                if not going_on:
                    break
                if len(going_on) < len(present):
                    kept = torch.tensor(going_on, device=texts.device)
                    keep_rows(state, kept, len(present))
                    texts = texts.index_select(0, kept)
                    present = [present[place] for place in going_on]
                    _tell(logits_processor, torch.tensor(present, device=texts.device))
                    if self._rows_left is not None:
                        self._rows_left(kept)
                step = model.prepare_inputs_for_generation(
                    texts, next_sequence_length=1 if state["use_cache"] else None, **state
                )
                outputs = model(**step, return_dict=True)
                state = model._update_model_kwargs_for_generation(outputs, state)  # noqa: SLF001  # as there
        return _padded(input_ids, ends.tokens, generation_config)

    def _ends(self, criteria: Sequence[Any], rows: int, prompt: int) -> Ends:
        last_tokens: set[int] = set()
        stop_strings = []
        limits = []
        for criterion in criteria:
            if isinstance(criterion, MultiTokenEOSCriteria):
                stop_strings.append(StopString(criterion.sequence, criterion.sequence_id_len))
            elif isinstance(criterion, EosTokenCriteria):
                last_tokens.update(criterion.eos_token_id.tolist())
            elif isinstance(criterion, MaxLengthCriteria):
                limits.append(criterion.max_length - prompt)
            else:
                raise UnsuitedError(f"it ends by {type(criterion).__name__}, which is asked about whole batches")
        return Ends(
            rows, last_tokens=last_tokens, stop_strings=stop_strings, texts=self._texts, limit=max(1, min(limits))
        )


def _check(model: Any, config: Any, processors: Sequence[Any]) -> None:
    if model.config.is_encoder_decoder:
        raise UnsuitedError("the model is an encoder-decoder")
    if (mode := config.get_generation_mode()) != GenerationMode.GREEDY_SEARCH:
        raise UnsuitedError(f"it is not greedy: {mode.value}")
    if config.num_return_sequences > 1 or config.return_dict_in_generate:
        raise UnsuitedError("more than a text is asked for")
    if config.prefill_chunk_size is not None:
        raise UnsuitedError("prompts are read in chunks")
    for processor in processors:
        if not isinstance(processor, (OfRows, *_BY_ROW)):
            raise UnsuitedError(f"{type(processor).__name__} may know rows by their number")


def _prepare_cache(state: Mapping[str, Any], limit: int) -> None:
    """Check that rows can be taken out of all that is carried from step to step, and give it room."""
    for name, value in state.items():
        if isinstance(value, Cache):
            if type(value) is not DynamicCache:
                raise UnsuitedError(f"its cache is a {type(value).__name__}, which keeps its rows")
            give_room(value, limit)
        elif not isinstance(value, torch.Tensor | bool | int | float | str) and not _is_nothing(value):
            raise UnsuitedError(f"it keeps {name} as {type(value).__name__}, from which rows cannot be taken")


def _is_nothing(value: Any) -> bool:
    """Whether a value holds nothing of any row: what a multimodal model made of no image is a mapping to None."""
    return value is None or (isinstance(value, Mapping) and all(map(_is_nothing, value.values())))


def _choose(logits: torch.Tensor, texts: torch.Tensor, processors: Callable[..., torch.Tensor]) -> torch.Tensor:
    scores = processors(texts, logits[:, -1].to(device=texts.device, dtype=torch.float32))
    return scores.argmax(dim=-1)


def _tell(processors: Sequence[Any], rows: torch.Tensor) -> None:
    for processor in processors:
        if isinstance(processor, OfRows):
            processor.rows = rows


def _padded(input_ids: torch.Tensor, tokens: Sequence[Sequence[int]], config: Any) -> torch.Tensor:
    longest = max(map(len, tokens))
    padding = int(config._pad_token_tensor)  # noqa: SLF001  # where transformers has put it
    generated = [[*own, *[padding] * (longest - len(own))] for own in tokens]
    return torch.cat([input_ids, torch.tensor(generated, device=input_ids.device)], dim=1)

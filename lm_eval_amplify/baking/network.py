"""The model that a checkpoint is of, built without weights, and which of its tensors are which of the model's."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto import modeling_auto

from lm_eval_amplify.architecture import FeedForward, find_feed_forwards
from lm_eval_amplify.baking.checkpoint import Checkpoint
from lm_eval_amplify.baking.tensor_files import FLOATS, Stored
from lm_eval_amplify.errors import CheckpointError


class Network:
    """A checkpoint's model on the meta device, its feed-forward networks, and its tensors by the model's names.

    Raises:
        CheckpointError: transformers cannot build it without code of the model's own.
        ArchitectureError: Its feed-forward networks are not supported.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.config, self.model = _build(checkpoint)
        self.blocks: list[FeedForward] = find_feed_forwards(self.model)
        self.class_name = type(self.model).__name__
        self._paths: dict[int, str] = {id(module): path for path, module in self.model.named_modules()}
        self.names = _names(self.model, checkpoint)

    def down(self, block: FeedForward) -> str:
        """Return the path of a network's down projection in the model."""
        return self._paths[id(block.down)]

    def stored(self, parameter: str) -> tuple[str, Stored]:
        """Return the name in the checkpoint, and the tensor, of one of the model's parameters.

        Raises:
            CheckpointError: The checkpoint has it not, in another form, or of a type that cannot be changed.
        """
        where = f"{self._checkpoint.name}: {parameter}"
        if parameter not in self.names:
            raise CheckpointError(f"{where} is not in the checkpoint, or in another form: load it and save it again")
        name = self.names[parameter]
        tensor = self._checkpoint.tensors[name]
        expected = tuple(self.model.get_parameter(parameter).shape)
        if tensor.shape != expected:
            raise CheckpointError(f"{where} is of shape {list(tensor.shape)}, expected {list(expected)}")
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{where} is of type {tensor.dtype}, expected one of {', '.join(FLOATS)}")
        return name, tensor


def _build(checkpoint: Checkpoint) -> tuple[Any, nn.Module]:
    try:
        config = transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        with torch.device("meta"):
            return config, _make(config)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"transformers cannot build {checkpoint.name}: {reason}") from error


def _make(config: Any) -> Any:
    """A model of the class that the harness takes; where it knows none, of that which was saved."""
    if config.model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForSeq2SeqLM.from_config(config)
    if config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForCausalLM.from_config(config)
    return getattr(transformers, next(iter(config.architectures or ()), "?"))(config)


def _names(model: nn.Module, checkpoint: Checkpoint) -> dict[str, str]:
    """The checkpoint's name of each of the model's tensors that it has as such, as transformers matches them."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    prefix, own = model.base_model_prefix, model.state_dict()
    found: dict[str, str] = {}
    for name in checkpoint.tensors:
        renamed, converted = rename_source_key(name, renamings, converters, prefix, own)
        if renamed not in own and name in own:
            renamed, converted = rename_source_key(name, [], [], prefix, own)
        if renamed in own and converted is None:
            found[renamed] = name
    return found

"""A tokenizer that stays what it was when the model beside it becomes a Llama: its class can depend on the model's.

transformers takes that of a Qwen2 model for a ``Qwen2Tokenizer``, say, which splits texts in its own way whatever
``tokenizer.json`` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers

from lm_eval_amplify.errors import CheckpointError
from lm_eval_amplify.provenance import tokenizer_hash

_CONFIG, _FILE = "tokenizer_config.json", "tokenizer.json"
_AS_IN_THE_FILE = "PreTrainedTokenizerFast"
"""The class that does what ``tokenizer.json`` says."""


def keep_tokenizer(source: Path, folder: Path) -> None:
    """Make the tokenizer in a folder, copied from another, load as the same; where it does not, write out what it does.

    Raises:
        CheckpointError: It cannot be written out.
    """
    if not any((source / name).is_file() for name in (_CONFIG, _FILE)):
        return
    tokenizer = _load(source)
    if tokenizer is None or _is_same(tokenizer, folder):
        return
    if hasattr(tokenizer, "backend_tokenizer"):
        path = folder / _CONFIG
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        config["tokenizer_class"] = _AS_IN_THE_FILE
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / _FILE).write_text(tokenizer.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
        if _is_same(tokenizer, folder):
            return
    raise CheckpointError(
        f"its tokenizer {type(tokenizer).__name__} would be another beside a Llama checkpoint: save it with "
        "tokenizer.json in the model's folder, and bake again"
    )


def _is_same(tokenizer: Any, folder: Path) -> bool:
    other = _load(folder)
    return other is not None and tokenizer_hash(other) == tokenizer_hash(tokenizer)


def _load(folder: Path) -> Any:
    """The tokenizer in a folder; None if there is none that loads by itself."""
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError):
        return None

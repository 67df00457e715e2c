"""A neuron file on the Hub: its card, and the upload."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lm_eval_amplify.errors import NeuronFileError
from lm_eval_amplify.languages import language_name, language_table
from lm_eval_amplify.neurons.locate import SUFFIX
from lm_eval_amplify.neurons.serialize import read_neurons
from lm_eval_amplify.neurons.show import describe

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = "README.md"


def card_of(path: Path, repository: str) -> str:
    """Return a model card for a neuron file: what it is of, how it was found, and how to use it.

    Raises:
        NeuronFileError: The file cannot be read.
    """
    content = read_neurons(path)
    manifest = content.manifest
    codes = [row.iso639_1 or row.code.partition("_")[0] for row in map(language_table().get, content.languages) if row]
    front = ["---", "library_name: lm-eval-amplify", "tags:", "- language-specific-neurons"]
    if manifest.model and _REPOSITORY.fullmatch(manifest.model):
        front += [f"base_model: {manifest.model}"]
    front += ["language:", *(f"- {code}" for code in dict.fromkeys(codes)), "---"]
    names = ", ".join(map(language_name, content.languages))
    operation = "" if "max" in content.statistics else ",operation=scale,factor=2"
    return "\n".join(
        [
            *front,
            "",
            f"# {path.name}",
            "",
            f"Neurons of {manifest.model or 'a model that is not recorded'} by language: {names}.",
            "lm-eval-amplify amplifies them in the lm-evaluation-harness (the method: arXiv 2507.22581):",
            "",
            "    pip install lm-eval-amplify",
            f"    lm_eval --model amplified_hf --model_args neurons=hf://{repository}/{path.name}{operation} \\",
            "        --tasks amplify_xcopa",
            "",
            "```",
            describe(content),
            "```",
            "",
        ]
    )


def push_neurons(
    path: str | Path,
    repository: str,
    *,
    revision: str | None = None,
    private: bool = False,
    endpoint: str | None = None,
) -> str:
    """Put a neuron file with its card into a repository of the Hub, in one commit.

    The repository is made if there is none. Its ``README.md`` becomes the card unless there is one already: then the
    card is ``<file>.md``.

    Args:
        path: The neuron file, which is validated first.
        repository: ``org/repo``.
        revision: Branch; by default the main one.
        private: Whether a new repository is private.
        endpoint: Address of the Hub; by default the one that huggingface_hub is set to.

    Returns:
        The address for ``neurons=``, with the commit.

    Raises:
        NeuronFileError: The file is not valid, the address has another form, or the Hub refuses or cannot be reached.
    """
    path = Path(path)
    if not _REPOSITORY.fullmatch(repository):
        raise NeuronFileError(f"repository {repository!r}: expected org/repo")
    card = card_of(path, repository).encode()
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        has_card = api.file_exists(repository, _CARD, revision=revision)
        done: Any = api.create_commit(
            repository,
            [
                CommitOperationAdd(path.name, str(path)),
                CommitOperationAdd(f"{path.name.removesuffix(SUFFIX)}.md" if has_card else _CARD, card),
            ],
            commit_message=f"{path.name}, made with lm-eval-amplify",
            revision=revision,
        )
    except Exception as error:  # from connection to permission, some twenty types
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NeuronFileError(
            f"cannot push {path} to {repository}: {reason}; log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    return f"hf://{repository}/{path.name}@{done.oid}"

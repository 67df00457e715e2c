"""Files of a repository on the Hugging Face Hub: one, named ``hf://org/repo/file[@revision]``, or a model's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lm_eval_amplify.errors import AmplifyError

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")

_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.md", "LICENSE*", "NOTICE*")
_OTHER_WEIGHTS = ("original/*", "onnx/*", "consolidated*")
"""The same weights once more, in other layouts."""


def download_file(address: str, error: type[AmplifyError]) -> Path:
    """Return the path of the file in the Hub's local cache, downloaded where it is not there yet.

    Args:
        address: ``hf://org/repo/file``, optionally with ``@revision``.
        error: What is raised.

    Raises:
        AmplifyError: ``error``: the address is malformed, or the file can neither be had nor is in the cache.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise error(f"{address!r} is not of the form hf://org/repo/file[@revision]")
    from huggingface_hub import hf_hub_download

    repository, file, revision = match.group("repo", "file", "revision")
    with _said_as(error, address):
        return Path(hf_hub_download(repository, file, revision=revision))


def download_model(repository: str, revision: str | None, error: type[AmplifyError]) -> Path:
    """Return the folder of the Hub's local cache with a model's files, downloaded where they are not there yet.

    These are the safetensors weights and what lies beside them; the folder's name is the commit.

    Args:
        repository: ``org/repo``.
        revision: Branch, tag or commit; by default the main branch.
        error: What is raised.

    Raises:
        AmplifyError: ``error``: they can neither be had nor are in the cache.
    """
    from huggingface_hub import snapshot_download

    with _said_as(error, f"model {repository!r}"):
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(_MODEL_FILES), ignore_patterns=list(_OTHER_WEIGHTS)
            )
        )


@contextmanager
def _said_as(error: type[AmplifyError], what: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise error(f"cannot get {what}: {reason}") from cause

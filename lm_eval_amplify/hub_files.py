"""One file of a repository on the Hugging Face Hub, named ``hf://org/repo/file[@revision]``."""

from __future__ import annotations

import re
from pathlib import Path

from lm_eval_amplify.errors import AmplifyError

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")


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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, file, revision = match.group("repo", "file", "revision")
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as cause:
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise error(f"cannot get {address}: {reason}") from cause

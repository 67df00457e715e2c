"""From what a user names to a neuron file on disk: a path, a file on the Hub, or one that ships with the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lm_eval_amplify.errors import NeuronFileError, did_you_mean
from lm_eval_amplify.resources import neuron_masks_folder

SUFFIX = ".neurons.safetensors"
_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")


def locate_neurons(name: str | os.PathLike[str]) -> Path:
    """Return the path of a neuron file.

    Args:
        name: A path, ``hf://org/repo/file[@revision]``, or the name of a file in ``neuron_masks/`` without suffix.

    Raises:
        NeuronFileError: There is no such file; names what was looked for.
    """
    text = os.fspath(name)
    if text.startswith("hf://"):
        return _download(text)
    if Path(text).is_file():
        return Path(text)
    bundled = {path.name.removesuffix(SUFFIX): path for path in sorted(neuron_masks_folder().glob(f"*{SUFFIX}"))}
    if text in bundled:
        return bundled[text]
    raise NeuronFileError(
        f"no neuron file {text!r}{did_you_mean(text, bundled)}: give a path, hf://org/repo/file[@revision]"
        + (f", or one of the bundled {', '.join(bundled)}" if bundled else "")
    )


def _download(address: str) -> Path:
    match = _HUB.fullmatch(address)
    if match is None:
        raise NeuronFileError(f"{address!r} is not of the form hf://org/repo/file[@revision]")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, file, revision = match.group("repo", "file", "revision")
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NeuronFileError(f"cannot get {address}: {reason}") from error

"""Activation-count files of LAPE's reference implementation (Tang et al. 2024): counts without the model.

One ``torch.save`` file a language: a dict of ``n``, the number of tokens, and ``over_zero`` ``[num_layers, d_ff]``, at
how many of them each neuron's activation is above zero. Identification keeps its own counts in the same form
(:mod:`lm_eval_amplify.identify.keeping`), so that the reference reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm_eval_amplify.errors import IdentificationError
from lm_eval_amplify.identify.activations import counts_from
from lm_eval_amplify.identify.counts import Counts
from lm_eval_amplify.identify.lape import Lape
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.neurons.file import Manifest, NeuronFile
from lm_eval_amplify.provenance import package_version


def read_counts(paths: Sequence[Path], languages: Sequence[str]) -> Counts:
    """Read the counts of several languages.

    Args:
        paths: A file each.
        languages: Their languages in order, by any name.

    Raises:
        IdentificationError: A file is not one of counts, or they do not fit together.
        LanguageError: A language is unknown.
    """
    codes = [canonical_language(language) for language in languages]
    if len(codes) != len(paths) or len(set(codes)) != len(codes):
        raise IdentificationError(
            f"{len(paths)} files of counts, and the languages {', '.join(codes)}: expected one of each file"
        )
    return Counts.join([_read(path, code) for path, code in zip(paths, codes, strict=True)])


def neurons_from_counts(counts: Counts, method: Lape, *, model: str | None = None, source: Sequence[str]) -> NeuronFile:
    """Return the neurons that LAPE chooses by some counts, without statistics.

    Args:
        counts: The counts.
        method: LAPE's rates.
        model: Name of the model to record.
        source: Names of the files to record.

    Raises:
        IdentificationError: There are fewer than two languages.
    """
    method.check(counts.languages)
    manifest = Manifest(
        model=model,
        num_layers=counts.over_zero.shape[0],
        intermediate_size=counts.over_zero.shape[1],
        method=method.name,
        parameters={**method.parameters, "counts": list(source)},
        tokens=dict(zip(counts.languages, counts.tokens.tolist(), strict=True)),
        package_version=package_version(),
        languages=counts.languages,
    )
    return NeuronFile(manifest, method.choose(counts))


def _read(path: Path, code: str) -> Counts:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise IdentificationError(f"cannot read counts {path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever the unpickler meets
        raise IdentificationError(
            f"{path} is not a file of counts that loads without running code ({type(error).__name__})"
        ) from error
    found = (
        {name: np.asarray(content[name]) for name in ("n", "over_zero") if name in content}
        if isinstance(content, dict)
        else {}
    )
    if (
        len(found) < 2
        or found["n"].ndim
        or found["over_zero"].ndim != 2
        or any(values.dtype.kind not in "iu" for values in found.values())
    ):
        raise IdentificationError(
            f"{path} is not a file of counts: expected whole numbers 'n' and 'over_zero' [num_layers, d_ff]"
        )
    try:
        return counts_from(code, {name: torch.from_numpy(values.astype(np.int64)) for name, values in found.items()})
    except IdentificationError as error:
        raise IdentificationError(f"{path}: {error}") from None

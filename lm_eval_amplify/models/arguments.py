"""Misspelt arguments of a model: a harness model hands on what it does not know, so they would go unnoticed."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from lm_eval_amplify.errors import InterventionError, did_you_mean

_TRANSFORMERS_OWN = frozenset({"n_layers", "n_positions"})
"""Arguments that transformers takes and whose names are nearer to ours than a slip of the keys."""

_SHORTEST_ABBREVIATION = 4


def refuse_misspelt(given: Iterable[str], model: type, harness_model: type) -> None:
    """Refuse arguments that are neither ours nor the harness model's but near one of ours.

    Args:
        given: Names of arguments that are not ours.
        model: Our class, whose keyword-only arguments are ours.
        harness_model: The class that would hand unknown arguments on to transformers.

    Raises:
        InterventionError: One is misspelt.
    """
    parameters = inspect.signature(model.__init__).parameters.items()  # type: ignore[misc]  # of the class as it is
    ours = [name for name, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    known = set(inspect.signature(harness_model.__init__).parameters)  # type: ignore[misc]
    for name in given:
        # Near enough for a slip of the keys, not for what transformers' configurations are called, and abbreviations.
        near = did_you_mean(name, ours, cutoff=0.82)
        short = [full for full in ours if full.startswith(name) and len(name) >= _SHORTEST_ABBREVIATION]
        near = f" (did you mean {short[0]!r}?)" if short else near
        if name not in known and name not in _TRANSFORMERS_OWN and near:
            raise InterventionError(f"unknown argument {name!r}{near}; ours are {', '.join(ours)}")

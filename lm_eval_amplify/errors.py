"""Users' mistakes: one line each, saying what was wrong, what came, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AmplifyError(Exception):
    """The base of every error that a user can cause; command lines print it as one line and exit with 2."""


class NeuronFileError(AmplifyError):
    """A neuron file that is missing, damaged, of another format, or not of this model."""


class LanguageError(AmplifyError):
    """A language that is unknown, or not in the neuron file, or a task without one."""


class NoTargetError(LanguageError):
    """A task for which no target language is left; a group of several tasks leaves it out."""


class InterventionError(AmplifyError):
    """An argument of the intervention that is unknown, out of range, or contradicts another."""


class ArchitectureError(AmplifyError):
    """A model whose feed-forward blocks cannot be found, or not changed in the way asked for."""


class ModelError(AmplifyError):
    """A model that cannot be loaded or run, gives no numbers, or cannot do what a task asks of it."""


class CheckpointError(AmplifyError):
    """A model's files that cannot be read or written, or that hold something else than the weights of a model."""


class IdentificationError(AmplifyError):
    """A parameter of the search for neurons that is out of range, or counts that do not fit together."""


class DataError(AmplifyError):
    """A dataset that is missing, incomplete or malformed."""


class LanguageIDError(AmplifyError):
    """A language identifier that is not installed, cannot be loaded, or does not know a language that a task needs."""


class CacheError(AmplifyError):
    """A response cache whose answers are not this model's."""


class ResultsError(AmplifyError):
    """Results of an evaluation that are missing, damaged or half-written, or cannot be put to the use asked for."""


class StudyError(AmplifyError):
    """A study whose file is wrong, whose folder is another study's or held by another process, or cannot be written."""


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """Return ``" (did you mean 'x'?)"`` for names in ``known`` of a similarity from ``cutoff`` to 1, else nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = [repr(by_lower[match]) for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)]
    return f" (did you mean {' or '.join(near)}?)" if near else ""

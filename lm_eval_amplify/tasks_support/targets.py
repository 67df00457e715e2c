"""Which languages a task of both sides amplifies for, from the task's metadata and the model's arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lm_eval_amplify.errors import LanguageError, NoTargetError
from lm_eval_amplify.languages import canonical_language
from lm_eval_amplify.neurons import NeuronFile, locate_neurons, read_neurons
from lm_eval_amplify.task_languages import OWN_LANGUAGE

# Below the harness's logger, whose level and format it shares.
_logger = logging.getLogger("lm_eval.amplify_targets")


def asked_targets(*, targets: Any = None, language: Any = None, neurons: Any = None) -> tuple[str, ...]:
    """Return the target languages that a user asked for, as FLORES-200 codes in their order, each once.

    The harness merges the model's arguments into the metadata of every task, so ``language`` and ``neurons``
    arrive there.

    Args:
        targets: Metadata ``targets``: a list, or codes joined with ``+``.
        language: The model's ``language``, which counts where there are no ``targets``; ``task`` is none.
        neurons: The model's neuron file, or what names it; its languages count where nothing else does.

    Raises:
        NoTargetError: None of them is given, as for a plain model.
        LanguageError: A language is unknown, or not in the neuron file.
        NeuronFileError: The neuron file cannot be read.
    """
    file = _read(neurons)
    names = _names("targets", targets)
    if names is None and language != OWN_LANGUAGE:
        names = _names("language", language)
    if names is None and file is not None:
        return file.languages
    if names is None:
        raise NoTargetError(
            "no target languages: use --model amplified_hf with neurons=<file> in --model_args (plain models "
            "cannot be amplified); for a model object made beforehand give metadata "
            "{'targets': 'ind_Latn+est_Latn'}"
        )
    resolve = canonical_language if file is None else file.resolve_language
    return tuple(dict.fromkeys(resolve(name) for name in names))


def comparable_targets(
    asked: Sequence[str], base_language: str, available: Iterable[str], source: str
) -> tuple[str, ...]:
    """Return those targets that a task in the base language can measure; a log line names the others.

    Args:
        asked: As :func:`asked_targets` returns them.
        base_language: The task's language, which is no target of its own.
        available: Languages that the data has names in.
        source: The data, for messages.

    Raises:
        NoTargetError: None is left.
    """
    others = [language for language in asked if language != base_language]
    have = set(available)
    missing = [language for language in others if language not in have]
    found = tuple(language for language in others if language in have)
    if not found:
        possible = ", ".join(sorted(have - {base_language})) or "none: no column obj_<l> but the base language's"
        raise NoTargetError(
            f"no target language for base language {base_language}: got {', '.join(asked) or 'none'}, "
            f"expected another one that {source} has objects in, of {possible}: give language=<code> in "
            "--model_args or targets in --metadata"
        )
    if missing:
        _logger.info("%s has no objects in %s: left out of the targets", source, ", ".join(missing))
    return found


def other_targets(asked: Sequence[str], base_language: str) -> tuple[str, ...]:
    """Return the targets without the base language, which is no target of its own.

    Args:
        asked: As :func:`asked_targets` returns them.
        base_language: The task's language.

    Raises:
        NoTargetError: None is left.
    """
    others = tuple(language for language in asked if language != base_language)
    if not others:
        raise NoTargetError(
            f"no target language for base language {base_language}: got {', '.join(asked) or 'none'}, expected another "
            "one: give language=<code> in --model_args or targets in --metadata"
        )
    return others


def members_with_targets(members: Sequence[Any], build: Callable[[Any], list[Any]], name: str) -> list[Any]:
    """Build the tasks of a group or tag, leaving out those for which no target language is left.

    Under ``language=ind_Latn`` a group over all base languages is to run on the others than Indonesian; and
    everything of a language, run on a plain model, is everything but the comparisons of both sides.

    Args:
        members: The members as a group's YAML lists them.
        build: Makes the tasks of one member.
        name: The group's or tag's, for the warning.

    Raises:
        NoTargetError: No member has a target; the first one's.
    """
    built: list[Any] = []
    left_out: list[Any] = []
    first: NoTargetError | None = None
    for member in members:
        try:
            built += build(member)
        except NoTargetError as error:  # noqa: PERF203  # each member stands for itself
            first = first or error
            left_out.append(member)
    if first is not None and not built:
        raise first
    if left_out:
        _logger.warning("%s left out of %s: %s", ", ".join(map(str, left_out)), name, first)
    return built


def _names(argument: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    names = value.split("+") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n.strip() for n in names):
        raise LanguageError(f"{argument}={value!r}: expected a list of languages, or codes joined with '+'")
    return [name.strip() for name in names]


def _read(neurons: Any) -> NeuronFile | None:
    if neurons is None or isinstance(neurons, NeuronFile):
        return neurons
    return read_neurons(locate_neurons(str(neurons)))

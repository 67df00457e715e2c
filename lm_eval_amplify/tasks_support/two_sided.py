"""Tasks that ask for both sides, amplified and unamplified, in one run: what they ask of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lm_eval_amplify.errors import LanguageError, ModelError


def check_models(lm: Any, tasks: Mapping[Any, Any]) -> None:
    """Let every task that can check the model do so, and the model check the others, before anything is scored.

    A task with a method ``check_model(lm)`` raises an error there. Nothing else in the harness shows a task
    the model: without this a plain model would score the other tasks of the run and then end in an
    AttributeError. The model checks those that are not ``is_two_sided``, whose requests say themselves which language
    they are for.

    Args:
        lm: The harness's model.
        tasks: What the harness's ``evaluate`` gets: tasks under ``tasks`` beside groups, or, as it used to be, tasks by
            name, possibly nested in groups.
    """
    every = list(leaves(tasks))
    for task in every:
        if hasattr(task, "check_model"):
            task.check_model(lm)
    check_tasks = getattr(lm, "check_tasks", None)
    if check_tasks is not None:
        check_tasks([task for task in every if not getattr(task, "is_two_sided", False)])


def require_both_sides(lm: Any, *, task: str, request_types: Iterable[str], targets: Iterable[str]) -> None:
    """Check that a model answers the request types and has neurons of the target languages.

    Raises:
        ModelError: It cannot be amplified; says which model to use.
        LanguageError: Its neuron file lacks a target language.
    """
    missing = [name for name in request_types if not callable(getattr(lm, name, None))]
    if missing:
        kind = type(getattr(lm, "lm", lm)).__name__  # under --use_cache a wrapper stands before the model
        raise ModelError(
            f"task {task!r} compares the amplified with the unamplified model, and {kind} has no "
            f"{missing[0]}: use --model amplified_hf with neurons=<file> in --model_args"
        )
    neurons = getattr(lm, "neurons", None)
    if neurons is None:
        raise ModelError(
            f"task {task!r} compares the amplified with the unamplified model: give neurons=<file> in --model_args"
        )
    for target in targets:
        try:
            neurons.resolve_language(target)
        except LanguageError as error:  # noqa: PERF203  # a dozen at most, each to be named
            raise LanguageError(f"task {task!r}: {error}") from error


def require_stop_token(lm: Any, *, task: str) -> None:
    """Check that a model can end a text: the harness's generation fails without a token to stop at.

    Raises:
        ModelError: Its tokenizer has no end-of-text token.
    """
    model = getattr(lm, "lm", lm)
    if getattr(model, "eot_token_id", 0) is None:
        raise ModelError(
            f"task {task!r} lets the model write, and its tokenizer has no token to stop at (eos_token): name the one "
            "that ends a text in the model's tokenizer_config.json"
        )


def leaves(tasks: Mapping[Any, Any]) -> Iterator[Any]:
    """Yield the tasks among what the harness's ``evaluate`` gets, which :func:`check_models` describes."""
    for task in tasks.get("tasks", tasks).values():
        if isinstance(task, Mapping):
            yield from leaves(task)
        else:
            yield task

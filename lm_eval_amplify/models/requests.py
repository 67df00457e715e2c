"""Which requests run under which intervention: grouped by language, both sides of a pair, answers in order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar

from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook

from lm_eval_amplify.errors import LanguageError
from lm_eval_amplify.models.finite import OnNonFinite, Watch
from lm_eval_amplify.models.paired_draws import Method, PairedDraws, is_sampled
from lm_eval_amplify.neurons.file import NeuronFile
from lm_eval_amplify.task_languages import language_of_task

LANGUAGE_COLUMN = "amplify_language"
"""The column of a document that says which language's neurons to amplify for its requests."""

Targets: TypeAlias = tuple[str, ...] | None
"""The languages whose neurons are amplified together; None: unamplified."""

Hook = TypeVar("Hook", bound=CacheHook)


class AmplifiedRequests(PairedDraws):
    """Runs the harness's requests, and their amplified and unamplified twins, on a model that can be amplified.

    Mixed in before a harness model. Under a fixed language, and where the intervention is an identity, the harness's
    own methods get all requests at once. Otherwise requests are grouped by language and each group runs under its own
    intervention. In a run of several processes each runs the groups that it has, by itself.
    """

    cache_hook: CacheHook
    _world_size: int
    on_nonfinite: OnNonFinite
    """What an answer that is not finite is: a warning, or an error."""
    neurons: NeuronFile | None
    fixed_targets: Targets
    """The languages of ``language=a+b``; None under ``language=task``."""
    shows_progress = True
    """Whether requests have a progress bar, as the harness has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._remembered: dict[Any, Any] = {}
        self._warned: set[tuple[str | None, str]] = set()
        super().__init__(*args, **kwargs)

    def amplified_as(self, targets: Sequence[str]) -> AbstractContextManager[None]:
        """Return a context in which the model is amplified for these languages."""
        raise NotImplementedError

    @property
    def condition(self) -> str:
        """The signature of the intervention in force, without its targets."""
        raise NotImplementedError

    def has_effect(self, targets: Sequence[str]) -> bool:
        """Whether amplifying these languages changes any activation: no identity, and some neuron."""
        raise NotImplementedError

    @property
    def is_amplified(self) -> bool:
        """Whether requests of the ordinary types run amplified at all: there are neurons, and no identity."""
        raise NotImplementedError

    # The harness's request types --------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Score continuations, amplified; see the harness."""
        return self._run_ordinary(super().loglikelihood, requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Score whole strings, amplified; see the harness."""
        return self._run_ordinary(super().loglikelihood_rolling, requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Generate, amplified; see the harness."""
        return self._run_ordinary(super().generate_until, requests, disable_tqdm)

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **options: Any) -> list[Any]:
        """Score continuations given as tokens; one of no token has the log-likelihood 0, where the harness fails.

        A continuation that is a space is nothing to a tokenizer that drops spaces at the end.
        """
        scored = [request for request in requests if request[2]]
        answers = iter(super()._loglikelihood_tokens(scored, *args, **options) if scored else [])
        return [next(answers) if request[2] else (0.0, True) for request in requests]

    # Their twins: a task asks for both sides in one run ------------------------------------------------------------

    def loglikelihood_amplified(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Score continuations amplified for the document's ``amplify_language``."""
        targets = self._twin_targets(requests)
        return self._run_twin("loglikelihood", super().loglikelihood, requests, targets, disable_tqdm)

    def loglikelihood_unamplified(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Score continuations by the plain model."""
        targets: list[Targets] = [None] * len(requests)
        return self._run_twin("loglikelihood", super().loglikelihood, requests, targets, disable_tqdm)

    def generate_until_amplified(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Generate amplified for the document's ``amplify_language``."""
        targets = self._twin_targets(requests)
        return self._run_twin("generate_until", self.paired(super().generate_until), requests, targets, disable_tqdm)

    def generate_until_unamplified(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Any]:
        """Generate by the plain model."""
        targets: list[Targets] = [None] * len(requests)
        return self._run_twin("generate_until", self.paired(super().generate_until), requests, targets, disable_tqdm)

    # Targets -----------------------------------------------------------------------------------------------------

    def check_tasks(self, tasks: Iterable[Any]) -> None:
        """Check before anything is scored that every task has a language under ``language=task``.

        Raises:
            LanguageError: One has none, or one that the neuron file lacks.
        """
        if not self.is_amplified or self.fixed_targets is not None:
            return
        for task in tasks:
            named = language_of_task(task.task_name)
            if named is None or self.neurons is None or named not in self.neurons.languages:
                first = task.eval_docs[0]
                self._language_of(Instance("loglikelihood", first, (), 0, (task.task_name, 0, 1)))

    def _twin_targets(self, requests: Sequence[Instance]) -> list[Targets]:
        """The document's own language first: a task with several targets asks for each under a fixed language too.

        Where there is nothing to change, both sides are the same answers: scored in batches of their own they would
        differ by rounding, and a sign is taken of their difference.
        """
        if self.neurons is None:
            raise LanguageError(
                f"task {requests[0].task_name!r} compares the amplified with the unamplified model: give "
                "neurons=<file> in the model's arguments"
            )
        asked = [
            self.fixed_targets
            if self.fixed_targets is not None and _column_of(request) is None
            else (self._language_of(request),)
            for request in requests
        ]
        in_effect: dict[tuple[str, ...], Targets] = {
            targets: targets if self.has_effect(targets) else None for targets in dict.fromkeys(asked)
        }
        return [in_effect[targets] for targets in asked]

    def _language_of(self, request: Instance) -> str:
        language = _column_of(request) or language_of_task(request.task_name or "")
        if language is None:
            raise LanguageError(
                f"task {request.task_name!r} has no language: its documents have no column {LANGUAGE_COLUMN!r} and "
                "its name says none; give language=<code> in the model's arguments"
            )
        if self.neurons is None:
            raise LanguageError("language=task needs neurons=<file>")
        try:
            return self.neurons.resolve_language(language)
        except LanguageError as error:
            raise LanguageError(f"task {request.task_name!r}: {error}") from error

    # What is remembered ------------------------------------------------------------------------------------------

    def forget_amplified(self) -> None:
        """Forget what amplified twins were answered; the answers without an intervention stay."""
        self._remembered = {key: answer for key, answer in self._remembered.items() if key[0] is None}

    @property
    def unamplified_answers(self) -> Mapping[Any, Any]:
        """What unamplified twins were answered; to be given back to :meth:`recall` later."""
        return {key: answer for key, answer in self._remembered.items() if key[0] is None}

    def recall(self, answers: Mapping[Any, Any]) -> None:
        """Remember these answers and no others."""
        self._remembered = dict(answers)

    # Running -----------------------------------------------------------------------------------------------------

    def _run_ordinary(self, method: Method, requests: list[Instance], disable_tqdm: bool) -> list[Any]:
        targets: list[Targets]
        if not self.is_amplified:
            targets = [None] * len(requests)
        elif self.fixed_targets is not None:
            targets = [self.fixed_targets] * len(requests)
        else:
            targets = [(self._language_of(one),) for one in requests]
        return self._run(method, requests, targets, disable_tqdm)

    def _run(
        self, method: Method, requests: list[Instance], targets: Sequence[Targets], disable_tqdm: bool
    ) -> list[Any]:
        """Run each group under its intervention and put the answers in order."""
        answers: list[Any] = [None] * len(requests)
        for group in sorted(set(targets), key=lambda group: group or ()):
            positions = [position for position, own in enumerate(targets) if own == group]
            chosen = requests if len(positions) == len(requests) else [requests[i] for i in positions]
            is_quiet = disable_tqdm or not self.shows_progress
            with self._alone(), self._watched(chosen, group) as watch, self._amplified_or_not(group):
                for position, answer in zip(positions, method(chosen, disable_tqdm=is_quiet), strict=True):
                    answers[position] = watch.marked(requests[position].args[0], answer)
        return answers

    def _amplified_or_not(self, targets: Targets) -> AbstractContextManager[None]:
        return nullcontext() if targets is None else self.amplified_as(targets)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let the harness's methods run as in a single process.

        They communicate to give every process equally many batches of one size, for models that are sharded among
        processes. Here each has a whole model; but groups differ in size, and a process whose requests
        are all in a cache does not come to communicate, so that the others would wait for it.
        """
        world_size, self._world_size = self._world_size, 1
        try:
            yield
        finally:
            self._world_size = world_size

    @contextmanager
    def _watched(self, requests: Sequence[Instance], targets: Targets) -> Iterator[Watch]:
        condition = f"amplified for {'+'.join(targets)} ({self.condition})" if targets else "unamplified"
        with self._cache_hook(Watch(self.cache_hook, requests, condition, self.on_nonfinite, self._warned)) as watch:
            yield watch

    @contextmanager
    def _cache_hook(self, hook: Hook) -> Iterator[Hook]:
        before, self.cache_hook = self.cache_hook, hook
        try:
            yield hook
        finally:
            self.cache_hook = before

    def _run_twin(
        self,
        kind: str,
        method: Method,
        requests: list[Instance],
        targets: Sequence[Targets],
        disable_tqdm: bool,
    ) -> list[Any]:
        """Run with the harness's cache off, which knows no sides; answers are remembered by condition instead."""
        keys = [self._key(kind, own, request) for own, request in zip(targets, requests, strict=True)]
        new: dict[Any, int] = {}
        for position, request in enumerate(requests):
            if is_sampled(request):  # each draw is its own, and none is remembered
                keys[position] = (*keys[position], position)
                self._remembered.pop(keys[position], None)
            if keys[position] not in self._remembered:
                new.setdefault(keys[position], position)
        chosen = list(new.values())
        with self._cache_hook(CacheHook(None)):
            answers = self._run(method, [requests[i] for i in chosen], [targets[i] for i in chosen], disable_tqdm)
        self._remembered.update(zip(new, answers, strict=True))
        return [self._remembered[key] for key in keys]

    def _key(self, kind: str, targets: Targets, request: Instance) -> tuple[Any, ...]:
        condition = None if targets is None else (self.condition, targets)
        return (condition, kind, json.dumps(request.args, sort_keys=True, default=repr))


def _column_of(request: Instance) -> str | None:
    return request.doc.get(LANGUAGE_COLUMN) if isinstance(request.doc, Mapping) else None

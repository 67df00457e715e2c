"""Runs a study: every unit that is not there yet, then the choice, then what runs under what was chosen."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.errors import StudyError
from lm_eval_amplify.progress import Show
from lm_eval_amplify.provenance import package_version
from lm_eval_amplify.sweep.choice import choose
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.folder import StudyFolder
from lm_eval_amplify.sweep.neurons import model_name, neurons_of
from lm_eval_amplify.sweep.plan import Planned, plan_sweep, plan_then
from lm_eval_amplify.sweep.prepare import Prepared
from lm_eval_amplify.sweep.store import Stage, Unit, digest_of
from lm_eval_amplify.sweep.suites import Suite, without_addresses
from lm_eval_amplify.sweep.units import UnitRunner

_logger = logging.getLogger(__name__)


class Finished(NamedTuple):
    """What came of a run."""

    ran: int
    """Units that were evaluated."""
    kept: int
    """Units that were there already."""
    chosen: dict[str, Any] | None
    """As in study.json."""


def run_study(prepared: Prepared, path: Path, report: Show) -> Finished:
    """Run a study in a folder, or what is left of it.

    Args:
        prepared: The study.
        path: The folder; made if there is none.
        report: Told about progress.

    Raises:
        AmplifyError: The folder is another study's, is held by another process or cannot be written, or something
            does not fit; what is finished is kept.
    """
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise StudyError(f"one of {processes} processes: a study runs in one; start it without accelerate or torchrun")
    folder, name = StudyFolder(path), prepared.file.name
    with folder.held():
        record = folder.read_record()
        if record is not None and record["name"] != name:
            raise StudyError(
                f"{folder.path} is of the study {record['name']!r}, not of {name!r}: give another folder with --out"
            )
        folder.clear_temporaries()
        return _Run(prepared, folder, report).run(is_new=record is None)


class _Run:
    def __init__(self, prepared: Prepared, folder: StudyFolder, report: Show) -> None:
        self._prepared = prepared
        self._folder = folder
        self._report = report
        self._entries: list[dict[str, Any]] = []
        self._ran = self._kept = 0

    def run(self, *, is_new: bool) -> Finished:
        prepared = self._prepared
        if is_new:
            self._write_record(chosen=None)  # what comes first takes long, and must be known for this study's
        neurons = neurons_of(prepared.file, self._folder.path, prepared.lm, prepared.conditions, self._report)
        self._runner = UnitRunner(prepared.lm, prepared.file.study, neurons)
        parts = [prepared.part(suite) for suite in prepared.suites]
        planned = plan_sweep(parts, prepared.conditions, prepared.file.study.controls, prepared.languages)
        self._begin("sweep", planned, lambda one: prepared.suite(one.unit.task), chosen=None)
        rule = prepared.file.study.choose
        chosen = None if rule is None else choose(prepared, rule, self._folder.results_of)
        if chosen is not None:
            self._then(chosen)
        else:
            self._set_aside_others("then", [])
        return Finished(self._ran, self._kept, chosen)

    def _then(self, chosen: dict[str, Any]) -> None:
        prepared = self._prepared
        conditions = {
            language: Condition.of_dict(found["condition"])
            for language, found in chosen["languages"].items()
            if found["condition"] is not None
        }
        by_name = {suite.name: suite for suite in prepared.then_suites}
        seeds = prepared.file.study.then.random if prepared.file.study.then is not None else ()
        planned = plan_then([prepared.part(suite) for suite in by_name.values()], conditions, seeds)

        def suite_of(one: Planned) -> Suite:
            suite = by_name[one.unit.task]
            return suite if one.targets is None else prepared.built_for(suite, one.targets[0])

        self._begin("then", planned, suite_of, chosen)

    def _begin(
        self,
        stage: Stage,
        planned: Sequence[Planned],
        suite_of: Callable[[Planned], Suite],
        chosen: dict[str, Any] | None,
    ) -> None:
        """Say in the folder what there will be, and run what there is not."""
        self._set_aside_others(stage, [one.unit for one in planned])
        parts = {one.unit: self._runner.parts_of(one, suite_of(one)) for one in planned}
        fingerprints = {unit: digest_of(own) for unit, own in parts.items()}
        self._entries += [{**unit.as_dict(), "fingerprint": digest} for unit, digest in fingerprints.items()]
        self._write_record(chosen)
        missing = [one for one in planned if not self._folder.is_finished(one.unit, fingerprints[one.unit])]
        self._kept += len(planned) - len(missing)
        for done, one in enumerate(missing):
            self._report(f"{stage}, units", len(planned) - len(missing) + done, len(planned))
            outcome = self._runner.run(one, suite_of(one))
            self._folder.put(one.unit, fingerprints[one.unit], parts[one.unit], outcome, _as_the_harness)
            self._ran += 1
        self._report(f"{stage}, units", len(planned), len(planned))

    def _set_aside_others(self, stage: Stage, units: Sequence[Unit]) -> None:
        for other in self._folder.set_aside_others(stage, units):
            _logger.warning("%s is no part of the study any more: moved aside", other)

    def _write_record(self, chosen: dict[str, Any] | None) -> None:
        prepared = self._prepared
        suites = {suite.name: suite for suite in (*prepared.suites, *(prepared.then_suites if chosen else ()))}
        self._folder.write_record(
            {
                "name": prepared.file.name,
                "study": prepared.file.study.model_dump(mode="json"),
                "model": model_name(prepared.file.study),
                "package_version": package_version(),
                "languages": list(prepared.languages),
                "tasks": {
                    name: {"leaves": suite.languages, "two_sided": suite.is_two_sided} for name, suite in suites.items()
                },
                "units": self._entries,
                "chosen": chosen,
            }
        )


def _as_the_harness(value: Any) -> Any:
    """What JSON has not, as the harness writes it, but for the addresses of functions, which differ from run to run."""
    from lm_eval.utils import handle_non_serializable

    plain = handle_non_serializable(value)
    return without_addresses(plain) if isinstance(plain, str) else plain

"""How the harness finds us: the discovery of plugins, for versions of `lm_eval` that have none.

A line in site-packages (``lm_eval_amplify_autoload.pth``, here ``autoload.pth``) makes every interpreter wait for the
import of `lm_eval`, and only then imports this module and calls :func:`install`. That adds to the harness, each right
after the loading of its module:

- ``lm_eval.models``: the models of our entry points become lazy placeholders in the harness's registry, unless the
  harness has done so itself or has a model of that name;
- ``lm_eval.tasks.manager``: our tasks' folder joins the search path, after the built-in tasks and before
  ``--include_path``, and a group or tag of ours leaves out the tasks whose data a local mirror lacks or that have no
  target;
- ``lm_eval.evaluator``: tasks of ours may check the model before anything is scored, and the results say how many
  answers were not finite;
- ``lm_eval.loggers.evaluation_tracker``: where ``pretrained`` is left to the neuron file, the results are named after
  the model that it names;
- ``lm_eval._cli.harness``: the harness's command line prints our users' errors as one line and exits with 2.

Nothing here may break the harness or slow its start, so every heavy import waits, and every failure is a warning.
``LM_EVAL_AMPLIFY_AUTOLOAD=0`` turns it off.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

_DISTRIBUTION = "lm-eval-amplify"
_OFF = "LM_EVAL_AMPLIFY_AUTOLOAD"
_OURS = "amplify_"


def install() -> None:
    """Let `lm_eval` find us; safe to call again, and after `lm_eval` is imported."""
    if os.environ.get(_OFF) == "0" or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name, extend in _EXTENSIONS.items():
        if name in sys.modules:
            _guarded(extend, sys.modules[name])


class _Finder:
    """Finds no module itself: adds an extension to the loading of the few that have one."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        extend = _EXTENSIONS.get(name)
        if extend is None:
            return None
        try:
            for finder in sys.meta_path:
                spec = None if finder is self else finder.find_spec(name, path, target)
                if spec is not None:
                    _extend_loading(spec.loader, extend)
                    return spec
        except Exception as error:  # noqa: BLE001  # the import must go on as it would without us
            _warn(error)
        return None


def _extend_loading(loader: Any, extend: Any) -> None:
    load = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        load(module)
        _guarded(extend, module)

    loader.exec_module = exec_module


def _guarded(extend: Any, module: ModuleType) -> None:
    try:
        extend(module)
    except Exception as error:  # noqa: BLE001  # a harness that we do not fit must still run
        _warn(error)


def _warn(error: Exception) -> None:
    import logging

    logging.getLogger(__name__).warning(
        "lm-eval-amplify cannot extend this version of lm_eval (%s: %s)", type(error).__name__, error
    )


def _register_models(_module: ModuleType) -> None:
    from importlib.metadata import distribution

    from lm_eval.api.registry import model_registry

    for entry_point in distribution(_DISTRIBUTION).entry_points.select(group="lm_eval.models"):
        if entry_point.name not in model_registry:
            model_registry.register(entry_point.name, target=entry_point)


def _extend_tasks(manager: Any) -> None:
    from pathlib import Path

    from lm_eval_amplify.resources import tasks_folder

    built_in = Path(manager.__file__).parent

    class TaskIndex(manager.TaskIndex):  # type: ignore[misc]
        """The harness's index, with our folder after the built-in one."""

        @staticmethod
        def build(paths: Any, **options: Any) -> Any:
            searched = list(paths)
            ours = tasks_folder()
            if built_in in searched and ours not in searched:
                searched.insert(searched.index(built_in) + 1, ours)
            return manager_index.build(searched, **options)

    class TaskFactory(manager.TaskFactory):  # type: ignore[misc]
        """The harness's factory; our groups and tags leave out what a local mirror lacks, and what has no target."""

        def _build_group_members(self, members: Any, group: str, overrides: Any, registry: Any) -> Any:
            build = super()._build_group_members
            if not group.startswith(_OURS):
                return build(members, group, overrides, registry)
            return self._build_possible(
                members, lambda member: build([member], group, overrides, registry), group, registry
            )

        def _build_tag(self, entry: Any, overrides: Any, registry: Any) -> Any:
            if not entry.name.startswith(_OURS):
                return super()._build_tag(entry, overrides, registry)
            return self._build_possible(
                sorted(entry.tags), lambda task: [self._build_task(registry[task], overrides)], entry.name, registry
            )

        def _build_possible(self, members: Any, build: Any, name: str, registry: Any) -> list[Any]:
            from lm_eval_amplify.data.mirror import mirrored_members
            from lm_eval_amplify.tasks_support.targets import members_with_targets

            members = mirrored_members(members, registry, self._meta.get("data_dir"), name)
            return members_with_targets(members, build, name)

    manager_index = manager.TaskIndex
    manager.TaskIndex = TaskIndex
    manager.TaskFactory = TaskFactory


def _extend_evaluation(evaluator: Any) -> None:
    from functools import wraps

    evaluate = evaluator.evaluate

    @wraps(evaluate)
    def evaluate_checked(lm: Any, task_dict: Any, *args: Any, **options: Any) -> Any:
        from lm_eval_amplify.tasks_support.two_sided import check_models, leaves

        check_models(lm, task_dict)
        results = evaluate(lm, task_dict, *args, **options)
        if getattr(lm, "on_nonfinite", None) is not None:
            from lm_eval_amplify.models.finite import report_nonfinite

            report_nonfinite(lm, leaves(task_dict), results)
        return results

    evaluator.evaluate = evaluate_checked


def _name_results(tracker: Any) -> None:
    own = tracker.GeneralConfigTracker
    name_of = own._get_model_name  # noqa: SLF001  # the harness has no public way to name its results

    def model_name(model_args: Any) -> Any:
        from lm_eval_amplify.neurons import model_of_neurons

        return name_of(model_args) or model_of_neurons(model_args)

    own._get_model_name = staticmethod(model_name)  # noqa: SLF001


def _one_line_errors(harness: Any) -> None:
    execute = harness.HarnessCLI.execute

    def execute_with_one_line_errors(self: Any, args: Any) -> None:
        from lm_eval_amplify.errors import AmplifyError

        try:
            execute(self, args)
        except AmplifyError as error:
            line = f"lm_eval: error: {error}"
        else:
            return
        # Only now are the frames of the run gone, and with them its progress bars, which end with a line of their own.
        print(line, file=sys.stderr)  # noqa: T201  # as argparse does
        raise SystemExit(2)

    harness.HarnessCLI.execute = execute_with_one_line_errors


_EXTENSIONS = {
    "lm_eval.models": _register_models,
    "lm_eval.tasks.manager": _extend_tasks,
    "lm_eval.evaluator": _extend_evaluation,
    "lm_eval.loggers.evaluation_tracker": _name_results,
    "lm_eval._cli.harness": _one_line_errors,
}

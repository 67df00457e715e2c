"""Where the files beside the code lie: in a wheel under ``_bundled/``, in a checkout at the top level."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    bundled = _PACKAGE / "_bundled" / name
    return bundled if bundled.is_dir() else _PACKAGE.parent / name


def tasks_folder() -> Path:
    """Return the folder of the harness tasks (YAML files); also the target of our ``lm_eval.tasks`` entry point."""
    return _folder("tasks")


def neuron_masks_folder() -> Path:
    """Return the folder of the neuron files that ship with the package."""
    return _folder("neuron_masks")


def recipes_folder() -> Path:
    """Return the folder of the studies that ship with the package."""
    return _folder("recipes")


def embedded_model(name: str) -> str:
    """Return the folder of the embedded model for the name ``babel``, any other name as it is.

    A checkpoint of that name in the working directory comes first, as everywhere in the ecosystem; a folder of
    results, say, is none.
    """
    is_checkpoint = (Path(name) / "config.json").exists()
    return str(_PACKAGE / "babel" / "model") if name == "babel" and not is_checkpoint else name

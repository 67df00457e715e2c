"""Imports point one way, and what should start quickly imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "lm_eval_amplify"

# A module may import those of its own line and of the lines above.
LAYERS = [
    ["errors", "resources", "progress", "processes", "quiet", "whole_files", "hub_files"],
    ["results"],
    ["languages"],
    ["task_languages", "data", "langid", "babel"],
    ["neurons"],
    ["intervention", "presets"],
    ["architecture"],
    ["positions", "test_time", "hooking", "amplifier"],
    ["amplifying"],
    ["provenance", "effect", "generation", "scoring"],
    ["identify", "baking"],
    ["tasks_support", "models"],
    ["steering", "demo"],
    ["sweep"],
    ["report"],
    ["demo_page", "side_by_side"],
    ["plugin", "cli_options", "cli_bake", "cli_neurons", "cli_results", "cli_report", "cli_generate", "cli_sweep"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lm_eval_amplify."):
            yield node.module
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lm_eval_amplify."))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_up_the_layers(path):
    relative = path.relative_to(REPOSITORY).with_suffix("")
    if relative.name == "__init__" and relative.parent.name == "lm_eval_amplify":
        return  # the lazy names of the package
    own = LEVEL[part_of(".".join(relative.parts))]
    for module in imports(path):
        assert LEVEL[part_of(module)] <= own, f"{relative} imports {module}"


@pytest.mark.parametrize(
    "statement",
    [
        "import lm_eval_amplify",
        "import lm_eval_amplify.cli",
        "from lm_eval_amplify import read_neurons, write_neurons, NeuronFile, Intervention, AmplifyError",
        "import lm_eval_amplify.task_languages",
        "import sys; sys.argv = ['x', '--help']; from lm_eval_amplify.cli import app; app(standalone_mode=False)",
    ],
)
def test_no_torch_is_imported_by(statement):
    script = (
        f"{statement}\nimport sys; assert not {{'torch', 'transformers', 'lm_eval', 'datasets'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    import lm_eval_amplify

    for name in lm_eval_amplify.__all__:
        assert getattr(lm_eval_amplify, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lm_eval_amplify.nothing  # noqa: B018


def test_no_file_is_longer_than_one_concept_needs():
    long = {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 320}
    assert long == {}

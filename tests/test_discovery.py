"""After ``pip install`` the stock harness knows us; after ``pip uninstall`` nothing is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import toy_tasks
from conftest import REPOSITORY

KNOWS_US = (
    "import lm_eval.models; from lm_eval.api.registry import model_registry as r;print('amplified_hf' in r, 'hf' in r)"
)


class Environment:
    """A virtual environment that sees this one's packages, but whose site-packages come first and are its own."""

    def __init__(self, folder: Path, *, with_dependencies: bool = True) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        (self.site_packages,) = (folder / "lib").glob("python*/site-packages")
        if with_dependencies:
            # A path in a .pth file: the .pth files over there (an installation of ours among them) are not run.
            (self.site_packages / "zz_dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def pip(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "pip", "--python", self.python, "--quiet", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def install(self, *what: object) -> None:
        # An installation of ours among the packages that it sees must not count as this one's.
        self.pip("install", "--no-deps", "--ignore-installed", *what)

    def run(self, *arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd or "/", env=clean | environment
        )

    def files(self) -> set[str]:
        found = {str(path.relative_to(self.site_packages)) for path in self.site_packages.rglob("*")}
        return {name for name in found if "__pycache__" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that no build folder of another version gets in."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(wheel)
    return environment


def test_the_wheel_holds_code_tasks_and_the_line_that_finds_us(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "lm_eval_amplify_autoload.pth" in names
    assert {
        "lm_eval_amplify/py.typed",
        "lm_eval_amplify/languages.tsv",
        "lm_eval_amplify/_bundled/tasks/xcopa/_xcopa_yaml",
        "lm_eval_amplify/_bundled/tasks/xcopa/utils.py",
        "lm_eval_amplify/_bundled/tasks/xcopa/README.md",
        "lm_eval_amplify/_bundled/tasks/lss_langid/prompts/quy_Latn.txt",
        "lm_eval_amplify/_bundled/neuron_masks/README.md",
    } <= names
    folders = {name.split("/")[0] for name in names}
    assert {name for name in folders if not name.endswith(".dist-info")} == {
        "lm_eval_amplify",
        "lm_eval_amplify_autoload.pth",
    }


def test_the_stock_command_line_runs_our_model_and_task_from_the_wheel(installed, saved, neuron_path, tmp_path):
    mirror = toy_tasks.write_mirror(tmp_path / "mirror")
    done = installed.run(
        "-m", "lm_eval", "--model", "amplified_hf", "--device", "cpu", "--limit", "2",
        "--tasks", "amplify_xcopa_ind_Latn",
        "--model_args", f"pretrained={saved('llama')},neurons={neuron_path('llama')},language=ind_Latn,factor=2",
        "--metadata", json.dumps({"data_dir": str(mirror)}), "--output_path", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "|amplify_xcopa_ind_Latn|" in done.stdout
    (path,) = (tmp_path / "out").glob("*/results_*.json")
    config = json.loads(path.read_text())["configs"]["amplify_xcopa_ind_Latn"]
    assert config["metadata"]["config_source"].startswith(str(installed.site_packages / "lm_eval_amplify" / "_bundled"))


def test_the_harness_lists_our_tasks_after_its_own(installed):
    done = installed.run("-m", "lm_eval", "ls", "tasks")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "|amplify_xcopa_quy_Latn " in done.stdout
    assert "|xcopa_qu " in done.stdout


def test_python_callers_find_us_too(installed):
    done = installed.run("-c", KNOWS_US)
    assert done.stdout.split() == ["True", "True"]
    script = (
        "from lm_eval.tasks import TaskManager as T; import sys; own = sys.argv[1];"
        "print('amplify_xcopa' in T(include_defaults=False).all_tasks,"
        " 'amplify_xcopa' in T(include_defaults=False, include_path=own).all_tasks)"
    )
    tasks = installed.site_packages / "lm_eval_amplify" / "_bundled" / "tasks"
    assert installed.run("-c", script, tasks).stdout.split() == ["False", "True"]


def test_a_users_task_of_the_same_name_wins_over_ours(installed, tmp_path):
    (tmp_path / "mine.yaml").write_text("task: amplify_xcopa_ind_Latn\ndataset_path: x\n")
    script = (
        "from lm_eval.tasks import TaskManager as T; import sys;"
        "print(T(include_path=sys.argv[1]).task_index['amplify_xcopa_ind_Latn'].yaml_path)"
    )
    assert installed.run("-c", script, tmp_path).stdout.strip() == str(tmp_path / "mine.yaml")


def test_it_is_off_with_an_environment_variable(installed):
    assert installed.run("-c", KNOWS_US, LM_EVAL_AMPLIFY_AUTOLOAD="0").stdout.split() == ["False", "True"]


def test_an_interpreter_without_the_harness_starts_and_imports_us(wheel, tmp_path):
    alone = Environment(tmp_path / "alone", with_dependencies=False)
    alone.install(wheel)
    done = alone.run("-c", "import sys, lm_eval_amplify; print('torch' in sys.modules)")
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("False", "", 0)


def test_starting_an_interpreter_imports_nothing(installed):
    script = (
        "import sys; print([m for m in sys.modules if m.startswith('lm_eval') or m in"
        " ('torch', 'typing', 're', 'logging', 'pathlib', 'importlib.metadata', 'numpy')])"
    )
    assert installed.run("-c", script).stdout.strip() == "[]"


@pytest.mark.parametrize("broken", ["raise RuntimeError('broken')", "import nowhere", "def install(: pass"])
def test_a_broken_plugin_breaks_no_interpreter(wheel, tmp_path, broken):
    environment = Environment(tmp_path / "broken")
    environment.install(wheel)
    (environment.site_packages / "lm_eval_amplify" / "plugin.py").write_text(broken)
    done = environment.run("-c", KNOWS_US)
    assert (done.stdout.split(), done.returncode) == (["False", "True"], 0)
    assert "broken" not in environment.run("-c", "pass").stderr


def test_a_harness_that_we_do_not_fit_still_runs(tmp_path):
    (tmp_path / "lm_eval" / "tasks").mkdir(parents=True)
    (tmp_path / "lm_eval" / "__init__.py").write_text("")
    (tmp_path / "lm_eval" / "models.py").write_text("fine = True")  # no registry
    (tmp_path / "lm_eval" / "tasks" / "__init__.py").write_text("")
    (tmp_path / "lm_eval" / "tasks" / "manager.py").write_text("fine = True")  # no TaskIndex
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from lm_eval_amplify.plugin import install; install();"
        "import lm_eval.models, lm_eval.tasks.manager; print(lm_eval.models.fine, lm_eval.tasks.manager.fine)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert "cannot extend this version of lm_eval" in done.stderr


def test_uninstalling_leaves_nothing_behind(wheel, tmp_path):
    environment = Environment(tmp_path / "env")
    before = environment.files()
    environment.install(wheel)
    assert environment.files() > before
    environment.pip("uninstall", "--yes", "lm-eval-amplify")
    assert environment.files() == before
    assert environment.run("-c", KNOWS_US).stdout.split() == ["False", "True"]


def test_an_editable_install_finds_us_and_the_tasks_where_they_lie(tmp_path):
    checkout = tmp_path / "checkout"
    kept = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "*.egg-info", ".hypothesis", "venv", ".venv")
    shutil.copytree(REPOSITORY, checkout, ignore=kept)
    environment = Environment(tmp_path / "env")
    before = environment.files()
    environment.install("--no-build-isolation", "--editable", checkout)
    assert environment.run("-c", KNOWS_US).stdout.split() == ["True", "True"]
    script = "from lm_eval_amplify.resources import tasks_folder as t; print(t())"
    assert environment.run("-c", script).stdout.strip() == str(checkout / "tasks")
    assert not (environment.site_packages / "lm_eval_amplify").exists()
    environment.pip("uninstall", "--yes", "lm-eval-amplify")
    assert environment.files() == before


# Beside a harness that discovers plugins itself, as its development branch does ---------------------------------------

STAND_IN = """
from importlib.metadata import entry_points
from lm_eval.api.registry import metric_registry, model_registry

for name, target in {built_in}.items():
    model_registry.register(name, target=target)
for group, registry in (("lm_eval.models", model_registry), ("lm_eval.metrics", metric_registry)):
    for entry_point in entry_points(group=group):
        if entry_point.name not in registry:
            registry.register(entry_point.name, target=entry_point)
"""


def stand_in(folder: Path, built_in: dict[str, str]) -> Path:
    """A package `lm_eval` with the harness's own registry and the documented discovery of entry points."""
    import lm_eval.api.registry

    (folder / "lm_eval" / "api").mkdir(parents=True)
    (folder / "lm_eval" / "models").mkdir()
    for package in ("", "api"):
        (folder / "lm_eval" / package / "__init__.py").write_text("")
    shutil.copy(lm_eval.api.registry.__file__, folder / "lm_eval" / "api" / "registry.py")
    (folder / "lm_eval" / "models" / "__init__.py").write_text(STAND_IN.format(built_in=built_in))
    return folder


LOOK = (
    "import lm_eval.models; from lm_eval.api.registry import model_registry as r, metric_registry as m;"
    "from importlib.metadata import EntryPoint, entry_points;"
    "own, = entry_points(group='lm_eval.models', name='amplified_hf');"
    "raw = dict(r.items())['amplified_hf'];"
    "r.register('discovered_late', target=own);"
    "text = isinstance(raw, str);"
    "print(not text and raw == own, text or isinstance(raw, EntryPoint), raw if text else raw.value, sorted(m.keys()))"
)


def test_a_harness_with_discovery_of_its_own_is_left_alone(installed, tmp_path):
    done = installed.run("-c", LOOK, PYTHONPATH=str(stand_in(tmp_path, {"hf": "a:B"})))
    assert done.stdout.split() == ["True", "True", "lm_eval_amplify.models.hf:AmplifiedHFLM", "[]"], done.stderr
    assert done.stderr == ""


def test_a_built_in_model_of_our_name_wins(installed, tmp_path):
    folder = stand_in(tmp_path, {"hf": "a:B", "amplified_hf": "the.harness:Own"})
    done = installed.run("-c", LOOK, PYTHONPATH=str(folder))
    assert done.stdout.split() == ["False", "True", "the.harness:Own", "[]"], done.stderr


def test_the_placeholder_becomes_the_class_on_first_use(installed):
    script = (
        "import lm_eval.models; from lm_eval.api.registry import get_model; import sys;"
        "before = 'lm_eval_amplify.models.hf' in sys.modules;"
        "print(before, get_model('amplified_hf').__name__)"
    )
    assert installed.run("-c", script).stdout.split() == ["False", "AmplifiedHFLM"]

"""What the tests of LSS share: a tiny model on disk with its neurons, and runs through the harness."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lm_eval
import tiny
from lm_eval.tasks import TaskManager
from lss_by_hand import ByHand
from transformers import AutoTokenizer

from lm_eval_amplify import write_neurons
from lm_eval_amplify.resources import tasks_folder

FACTOR = 2.0


def tiny_files(folder: Path, family: str = "qwen2", languages: tuple[str, ...] = tiny.LANGUAGES) -> SimpleNamespace:
    """A saved tiny model, its neurons, and the slow scorer."""
    pretrained = tiny.saved_model(family, folder / family)
    neurons = tiny.neurons(family, languages)
    file = folder / f"{family}.neurons.safetensors"
    write_neurons(neurons, file)
    # As loaded: transformers gives the tokenizer of some families a normaliser and splitting of its own.
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    by_hand = ByHand(tiny.model(family), tokenizer, neurons, FACTOR)
    return SimpleNamespace(pretrained=str(pretrained), neurons=str(file), content=neurons, by_hand=by_hand)


def run(
    files: SimpleNamespace,
    tasks: list[str],
    data_dir: Path,
    *,
    limit=None,
    metadata=None,
    batch_size=1,
    **args,
):
    """Results of the harness with `amplified_hf`; further keywords are model arguments."""
    model_args = {"pretrained": files.pretrained, "neurons": files.neurons, "factor": FACTOR} | args
    return evaluate(
        "amplified_hf", model_args, tasks, {"data_dir": str(data_dir)} | (metadata or {}), limit, batch_size
    )


def evaluate(model, model_args, tasks: list[str], metadata: dict, limit=None, batch_size=1) -> dict:
    """As `simple_evaluate` does it, only without the harness's own tasks, whose index takes seconds."""
    given = (model_args or {}) | metadata
    manager = TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata=given)
    return lm_eval.simple_evaluate(
        model=model,
        model_args=model_args,
        tasks=tasks,
        device="cpu",
        batch_size=batch_size,
        limit=limit,
        task_manager=manager,
    )


def two_processes(arguments: dict, out: Path) -> dict:
    """What the first of two processes of ``lss_worker.py`` has found."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    ran = subprocess.run(
        [*launcher, str(Path(__file__).with_name("lss_worker.py")), json.dumps(arguments), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(out.with_suffix(".0.json").read_text(encoding="utf-8"))


def samples(results: dict, task: str) -> list[dict]:
    return sorted(results["samples"][task], key=lambda sample: sample["doc_id"])


@functools.cache
def synthetic_rows() -> dict[str, list[dict]]:
    """Facts in Indonesian, Chinese and Turkish: [Y] at the end, in the middle, attached, spaced."""
    names = {
        "obj_id": "Prancis", "obj_zh": "法国", "obj_tr": "Fransa", "obj_et": "Prantsusmaa",
        "obj_ta": "பிரான்சு",
        "sub_id": "Paris", "sub_zh": "巴黎", "sub_tr": "Paris", "sub_et": "Pariis", "sub_ta": "பாரிஸ்",
    }  # fmt: skip
    more = {
        "obj_id": "Jepang", "obj_zh": "日本", "obj_tr": "Japonya", "obj_et": "Jaapan", "obj_ta": "சப்பான்",
        "sub_id": "Tokyo", "sub_zh": "东京", "sub_tr": "Tokyo", "sub_et": "Tokyo", "sub_ta": "தோக்கியோ",
    }  # fmt: skip
    templates = {
        "id": ["[X] adalah ibu kota [Y].", "Kota [X] ada di [Y] sekarang."],
        "zh": ["[X]是[Y]的首都。", "[X] 在 [Y]。"],
        "tr": ["[X] [Y] ülkesindedir.", "[X], [Y] başkentidir."],
    }
    return {
        short: [{"predicate_id": "P0", "language": short, "template": template} | fact
                for template in own for fact in (names, more)]
        for short, own in templates.items()
    }  # fmt: skip

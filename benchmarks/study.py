"""What a study costs: beside the same conditions as processes of their own, and as a loop over one loaded model.

    python benchmarks/study.py [--documents 40] [--processes 6]
    python benchmarks/study.py --overhead

Six languages, five factors, LSS between them on the facts that ship with the package, by a Qwen2 of 79 M parameters
with random weights, float32, one thread. All times are CPU seconds. A condition of the other two is one target language
and one factor: 30 of them; every factor costs the same, so --processes of them are run, and counted as 30. The loop is
given what it can have: the model is loaded, an index of our tasks alone is built once for a language, and the machine
is not described. --overhead measures what a unit of about 10,000 requests takes beyond scoring.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from workloads import SHAPES, build

from lm_eval_amplify.babel.corpus import LANGUAGES as ALL
from lm_eval_amplify.babel.corpus import documents
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile, write_neurons
from lm_eval_amplify.resources import tasks_folder

LANGUAGES = ("eng_Latn", "ind_Latn", "est_Latn", "rus_Cyrl", "tha_Thai", "zho_Hans")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def save(folder: Path) -> None:
    """A model, a tokenizer trained on babel's texts, and random neurons of every language."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [text for language in ALL for text, _ in zip(documents(language, "train"), range(400), strict=False)]
    trainer = trainers.BpeTrainer(vocab_size=8000, special_tokens=["<|end|>"], show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|end|>").save_pretrained(folder)
    build("79M", "cpu", "float32").save_pretrained(folder)
    layers, d_ff = SHAPES["79M"]["num_hidden_layers"], SHAPES["79M"]["intermediate_size"]
    own = {}
    for number, language in enumerate(ALL):
        chosen = np.sort(np.random.default_rng(number).choice(layers * d_ff, 250, replace=False))
        statistic = {"max": np.ones(len(chosen), np.float32)}
        own[language] = LanguageNeurons((chosen // d_ff).astype(np.int32), (chosen % d_ff).astype(np.int32), statistic)
    manifest = Manifest(num_layers=layers, intermediate_size=d_ff, method="random", package_version="0", languages=ALL)
    write_neurons(NeuronFile(manifest, own), folder / "n.safetensors")


def study_file(folder: Path, documents_of_task: int, **changes: object) -> Path:
    content = {
        "model": {"pretrained": str(folder), "batch_size": 8, "device": "cpu"},
        "neurons": str(folder / "n.safetensors"),
        "languages": list(LANGUAGES),
        "interventions": [{"factor": list(FACTORS)}],
        "tasks": ["amplify_lss"],
        "limit": documents_of_task,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(*command: object) -> float:
    """CPU seconds of a process."""
    before = children_seconds()
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return children_seconds() - before


def bases(target: str) -> list[str]:
    return [f"amplify_lss_{base}" for base in LANGUAGES if base != target]


def as_study(folder: Path, number: int) -> float:
    out = folder / f"out{time.time_ns()}"
    return run(sys.executable, "-m", "lm_eval_amplify.cli", "sweep", study_file(folder, number), "--out", out)


def as_processes(folder: Path, number: int, processes: int) -> float:
    taken = 0.0
    conditions = [(target, factor) for factor in FACTORS for target in LANGUAGES]
    for target, factor in conditions[:processes]:
        arguments = f"pretrained={folder},neurons={folder / 'n.safetensors'},language={target},factor={factor}"
        taken += run(sys.executable, "-m", "lm_eval", "--model", "amplified_hf", "--model_args", arguments, "--tasks",
                     ",".join(bases(target)), "--limit", number, "--batch_size", 8, "--device", "cpu",
                     "--output_path", folder / "results", "--log_samples")  # fmt: skip
    return taken / processes * len(conditions)


def as_loop(folder: Path, number: int) -> float:
    import lm_eval
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lm_eval_amplify.models.hf import AmplifiedHFLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    managers = {
        target: TaskManager(include_path=str(tasks_folder()), include_defaults=False, metadata={"targets": [target]})
        for target in LANGUAGES
    }
    start = time.process_time()
    for factor in FACTORS:
        for target in LANGUAGES:
            lm = AmplifiedHFLM(
                model, tokenizer=tokenizer, neurons=str(folder / "n.safetensors"), language=target, factor=factor,
                batch_size=8,
            )  # fmt: skip
            with mock.patch("lm_eval.evaluator.add_env_info"):
                lm_eval.simple_evaluate(
                    lm, tasks=bases(target), task_manager=managers[target], limit=number, log_samples=True,
                    bootstrap_iters=100,
                )  # fmt: skip
    return time.process_time() - start


@contextmanager
def counted(owner: type, name: str, spent: list[float]) -> Iterator[None]:
    method = getattr(owner, name)

    def timed(*arguments: object, **options: object) -> object:
        start = time.process_time()
        try:
            return method(*arguments, **options)
        finally:
            spent.append(time.process_time() - start)

    with mock.patch.object(owner, name, timed):
        yield


def overhead(folder: Path) -> None:
    """Units of all languages: what they take, beyond what scores requests."""
    from lm_eval_amplify.models.packed import PackedHFLM
    from lm_eval_amplify.sweep.prepare import prepare
    from lm_eval_amplify.sweep.run import run_study
    from lm_eval_amplify.sweep.study_file import read_study_file
    from lm_eval_amplify.sweep.units import UnitRunner

    prepared = prepare(read_study_file(study_file(folder, 11, languages=list(ALL), interventions=[{"factor": [1, 2]}])))
    requests = sum(len(task.instances) for task in prepared.suites[0].tasks.values())
    scoring: list[float] = []
    units: list[float] = []
    start = time.process_time()
    with counted(PackedHFLM, "_loglikelihood_tokens", scoring), counted(UnitRunner, "run", units):
        run_study(prepared, folder / "overhead", lambda *_: None)
    whole = time.process_time() - start
    print(f"{requests:,} requests a condition, 2 conditions: {whole:.1f} s, of which scoring {sum(scoring):.1f} s, the "
          f"rest of the units {sum(units) - sum(scoring):.1f} s, writing and planning {whole - sum(units):.1f} s: "
          f"{whole / sum(scoring) - 1:.1%} beyond scoring")  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--documents", type=int, default=40, help="facts of each base language")
    options.add_argument("--processes", type=int, default=6, help="of 30 are run")
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--overhead", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        if given.overhead:
            overhead(folder)
            return
        print(f"{'study':>9} {'processes':>10} {'ratio':>6} {'loop':>9} {'ratio':>6}")
        for _ in range(given.rounds):
            study = as_study(folder, given.documents)
            processes = as_processes(folder, given.documents, given.processes)
            loop = as_loop(folder, given.documents)
            print(f"{study:>7.1f} s {processes:>8.1f} s {study / processes:>6.2f} {loop:>7.1f} s {study / loop:>6.2f}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""The demonstration: on the embedded model, from texts to neurons to the harness's numbers, without a network."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_amplify.errors import AmplifyError
from lm_eval_amplify.identify import Lape, Texts, identify, open_corpus, random_control
from lm_eval_amplify.identify.loading import Loaded, load_model
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import NeuronFile, write_neurons
from lm_eval_amplify.quiet import without_warnings
from lm_eval_amplify.resources import embedded_model, tasks_folder

MODEL = "babel"
METHOD = Lape(top_rate=0.2, filter_rate=0.8, activation_bar_ratio=0.8)
"""More neurons than LAPE's defaults choose: babel has few, and was trained to have them take sides."""
TOKENS = 5_000
BASES = ("eng_Latn", "fra_Latn", "zho_Hans")
"""Languages of the prompts."""
TARGETS = ("ind_Latn", "rus_Cyrl", "swh_Latn")
"""Languages whose neurons are amplified."""
INTERVENTIONS = (
    Intervention("set", 1.0, "max"),
    Intervention("set", 1.0, "sentence_median"),
    Intervention("add", 1.0, "max"),
    Intervention("scale", 2.0),
)
PROMPTS = (("The old woman", "rus_Cyrl"), ("My father", "ind_Latn"))
"""Beginning, target language."""
NEW_TOKENS = 20

Report = Callable[[str, int, int], None]


class Row(NamedTuple):
    """One intervention's result: the mean LSS over base languages and targets."""

    intervention: Intervention
    lss: float
    """With the neurons of the target languages."""
    lss_random: float
    """With as many random neurons in the same layers."""


class Written(NamedTuple):
    """What the model writes after a beginning."""

    prompt: str
    target: str
    unamplified: str
    amplified: str


class Outcome(NamedTuple):
    """What the demonstration found."""

    neurons: NeuronFile
    rows: list[Row]
    written: list[Written]


def run_demo(out: Path | None = None, report: Report = lambda *_: None) -> Outcome:
    """Identify neurons, evaluate interventions through the harness, and generate.

    Args:
        out: Folder that keeps the neuron files and the harness's results; by default nothing is kept.
        report: Told about progress: the stage, how much is done, how much there is in all.

    Raises:
        AmplifyError: The folder cannot be written.
    """
    loaded = load_model(MODEL, device="cpu")
    with _folder(out) as folder, without_warnings():
        texts = Texts(open_corpus("babel"), TOKENS, max_length=128, batch_size=32)
        found = identify(*loaded, texts, method=METHOD, model_name=MODEL, report=report)
        control = random_control(found, 0, *loaded, texts)
        files = {}
        for name, content in (("neurons", found), ("random", control)):
            files[name] = folder / f"{name}.safetensors"
            write_neurons(content, files[name])
        results = folder / "results" if out is not None else None
        rows = list(_evaluate(files, results, report))
        return Outcome(found, rows, [_write(loaded, found, *prompt) for prompt in PROMPTS])


def model_arguments(intervention: Intervention) -> dict[str, Any]:
    """Return an intervention as arguments of the model ``amplified_hf``."""
    arguments: dict[str, Any] = {"operation": intervention.operation, "factor": intervention.factor}
    return arguments | ({} if intervention.operation == "scale" else {"statistic": intervention.statistic})


def _evaluate(files: Mapping[str, Path], results: Path | None, report: Report) -> Iterator[Row]:
    from lm_eval.tasks import TaskManager

    # The tasks needed, alone: the harness's own index of thousands takes seconds to build.
    folder = str(tasks_folder() / "lss")
    tasks = TaskManager(include_path=folder, include_defaults=False, metadata={"targets": list(TARGETS)})
    done, total = 0, len(INTERVENTIONS) * len(files)
    report("evaluating", done, total)
    for intervention in INTERVENTIONS:
        lss = {}
        for name, file in files.items():
            lss[name] = _harness_lss(file, intervention, tasks, results and results / name)
            done += 1
            report("evaluating", done, total)
        yield Row(intervention, lss["neurons"], lss["random"])


def _harness_lss(file: Path, intervention: Intervention, tasks: Any, results: Path | None) -> float:
    """Mean over the base languages, as ``lm_eval`` computes it; written below ``results`` if that is given."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(results)) if results else None
    arguments = {"pretrained": embedded_model(MODEL), "neurons": str(file), **model_arguments(intervention)}
    with _silent():
        outcome = simple_evaluate(
            "amplified_hf",
            model_args=arguments,
            tasks=[f"amplify_lss_{base}" for base in BASES],
            task_manager=tasks,
            batch_size=64,
            device="cpu",
            log_samples=tracker is not None,
            evaluation_tracker=tracker,
            bootstrap_iters=0,
        )
    if tracker is not None:
        samples = outcome.pop("samples")
        tracker.save_results_aggregated(results=outcome, samples=samples)
        for task, of_task in samples.items():
            tracker.save_results_samples(task, of_task)
    return float(sum(outcome["results"][f"amplify_lss_{base}"]["lss,none"] for base in BASES) / len(BASES))


def _write(loaded: Loaded, neurons: NeuronFile, prompt: str, target: str) -> Written:
    import torch

    from lm_eval_amplify.amplifier import Amplifier

    model: Any = loaded.model
    inputs = loaded.tokenizer(prompt, return_tensors="pt")

    def write() -> str:
        with torch.no_grad():
            ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        return str(loaded.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    unamplified = write()
    with Amplifier(loaded.model, neurons, INTERVENTIONS[0]).amplified(target):
        return Written(prompt, target, unamplified, write())


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder to keep, made if need be, or one that is gone afterwards, also after an interrupt."""
    if out is None:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out):
            pass
    except OSError as error:
        raise AmplifyError(f"cannot write to {out}: {error.strerror}; give another folder with --out") from error
    yield out


@contextmanager
def _silent() -> Iterator[None]:
    """Keep out what a run of the harness writes to stderr: a set of progress bars, and git's word on the folder."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123  # not a path
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)

"""Runs a unit through the harness: the model is switched in place, what was answered unamplified is kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.models.paired_draws import is_sampled
from lm_eval_amplify.neurons import NeuronFile
from lm_eval_amplify.provenance import neuron_file_hash, package_version
from lm_eval_amplify.sweep.folder import Outcome
from lm_eval_amplify.sweep.plan import Planned
from lm_eval_amplify.sweep.study import Study
from lm_eval_amplify.sweep.suites import Suite, seed_everything
from lm_eval_amplify.task_languages import OWN_LANGUAGE

NeuronFiles = Mapping[int | None, tuple[str, NeuronFile]]
"""Name and content of the languages' neurons (None) and of random ones (by seed)."""


class UnitRunner:
    """Runs units on one model.

    Args:
        lm: The model; what it runs under is changed.
        study: The study.
        neurons: Whose neurons there are.
    """

    def __init__(self, lm: AmplifiedHFLM, study: Study, neurons: NeuronFiles) -> None:
        self._lm = lm
        self._study = study
        self._neurons = neurons
        self._unamplified: tuple[str, Mapping[Any, Any]] = ("", {})
        self._suite: Suite | None = None

    def parts_of(self, planned: Planned, suite: Suite) -> dict[str, Any]:
        """Return everything that a unit's numbers come from, by name."""
        condition = planned.unit.condition
        tasks = suite.within(planned.languages)["tasks"]
        study = self._study
        parts: dict[str, Any] = dict(self._model_parts)
        if condition.intervention is not None:
            parts["neurons"] = f"sha256:{neuron_file_hash(self._neurons[condition.seed][1])}"
            parts["language"] = condition.language
            parts |= condition.intervention.signature_parts
        parts["tasks"] = {
            name: {"version": str(task.VERSION), "shots": task.config.num_fewshot, "requests": suite.digests[name]}
            for name, task in tasks.items()
        }
        parts["harness"] = version("lm-eval")
        parts["settings"] = {
            "gen_kwargs": study.gen_kwargs,
            "bootstrap_iters": study.bootstrap_iters,
            "seed": study.seed,
            "batch_size": study.model.get("batch_size", 1),
            "metadata": {name: value for name, value in study.metadata.items() if name != "data_dir"},
        }
        return parts

    def run(self, planned: Planned, suite: Suite) -> Outcome:
        """Evaluate a unit.

        Raises:
            AmplifyError: The model cannot be amplified so, or what a task of ours raises.
        """
        from lm_eval import evaluator

        began, clock = time.time(), time.perf_counter()
        condition = planned.unit.condition
        if suite is not self._suite:
            self._suite = suite
            self._lm.keep_encodings()
        chosen = suite.within(planned.languages)
        self._remember_unamplified(chosen["tasks"])
        if condition.intervention is None:
            self._lm.switch(None, None, condition.language)
        else:
            self._lm.switch(condition.intervention, self._neurons[condition.seed][1], condition.language)
        seed_everything(self._study.seed)
        for task in chosen["tasks"].values():
            for instance in task.instances:
                instance.resps, instance.filtered_resps = [], {}
        found = evaluator.evaluate(
            lm=self._lm,
            task_dict=chosen,
            limit=suite.how.limit or self._study.limit,
            bootstrap_iters=self._study.bootstrap_iters,
            log_samples=True,
            system_instruction=self._study.system_instruction,
            apply_chat_template=self._study.apply_chat_template,
            fewshot_as_multiturn=self._study.fewshot_as_multiturn,
        )
        samples = {task: [_as_logged(one) for one in own] for task, own in found.pop("samples").items()}
        results = {**found, **self._of_run(planned, suite, samples), "date": began}
        results["total_evaluation_time_seconds"] = str(time.perf_counter() - clock)
        return Outcome(results, samples)

    def _remember_unamplified(self, tasks: Mapping[str, Any]) -> None:
        """Answer the unamplified twins, all at once, unless that has been done.

        All of them in the same batches whichever unit comes first, so that a study that goes on after a stop has the
        very numbers that it would have had without.
        """
        by_type: dict[str, list[Any]] = {}
        for task in tasks.values():
            for one in task.instances:
                if one.request_type.endswith("_unamplified") and not is_sampled(one):
                    by_type.setdefault(one.request_type, []).append(one)
        asked = [[kind, *(one.args for one in own)] for kind, own in by_type.items()]
        key = hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()
        if key != self._unamplified[0]:
            # By no unit's scorer: that of an intervention with a test-time statistic is another one.
            self._lm.switch(None, None, OWN_LANGUAGE)
            self._lm.recall({})
            seed_everything(self._study.seed)
            for kind, own in by_type.items():
                getattr(self._lm, kind)(own)
            self._unamplified = (key, self._lm.unamplified_answers)
        self._lm.recall(self._unamplified[1])

    def _of_run(self, planned: Planned, suite: Suite, samples: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """What the harness adds to its results, but for what describes the machine and changes from run to run."""
        from lm_eval.utils import hash_string, sanitize_model_name

        study, lm = self._study, self._lm
        arguments = {name: value for name, value in study.model.items() if name not in ("batch_size", "device")}
        condition = planned.unit.condition
        if (one := condition.intervention) is not None:
            arguments["neurons"] = self._neurons[condition.seed][0]
            arguments["language"] = condition.language
            arguments |= {"operation": one.operation, "factor": one.factor}
            arguments |= {} if one.operation == "scale" else {"statistic": one.statistic}
            if one.others_operation is not None:
                arguments |= {"others_operation": one.others_operation, "others_factor": one.others_factor}
            arguments |= {"layers": one.layers, "positions": one.positions}
        config = {"model": "amplified_hf", "model_args": arguments, **self._model_info, "amplify": lm.provenance}
        config |= {
            "batch_size": study.model.get("batch_size"),
            "batch_sizes": [],
            "device": study.model.get("device"),
            "use_cache": None,
            "limit": suite.how.limit or study.limit,
            "bootstrap_iters": study.bootstrap_iters,
            "gen_kwargs": study.gen_kwargs or None,
            "random_seed": study.seed,
            "numpy_seed": study.seed,
            "torch_seed": study.seed,
            "fewshot_seed": study.seed,
        }
        instruction = study.system_instruction
        template = lm.chat_template(study.apply_chat_template) if study.apply_chat_template else None
        name = lm.model.config.name_or_path
        hashes = {
            task: hash_string("".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in own))
            for task, own in samples.items()
        }
        return {
            "config": config,
            **self._environment,
            "task_hashes": hashes,
            "model_source": "amplified_hf",
            "model_name": name,
            "model_name_sanitized": sanitize_model_name(name),
            "system_instruction": instruction,
            "system_instruction_sha": hash_string(instruction) if instruction else None,
            "fewshot_as_multiturn": study.fewshot_as_multiturn if template else None,
            "chat_template": template,
            "chat_template_sha": hash_string(template) if template else None,
        }

    @cached_property
    def _model_info(self) -> dict[str, Any]:
        """Asked for once: it looks the model's revision up."""
        return {name: value for name, value in self._lm.get_model_info().items() if name != "amplify"}

    @cached_property
    def _model_parts(self) -> dict[str, str]:
        """The signature's parts that are the same in every unit."""
        wanted = ("model", "tokenizer", "hf", "dtype")
        parts = {name: value for name, value in self._lm.provenance.items() if name in wanted}
        return parts | {"scorer": str(self._study.model.get("scorer", "packed")), "version": package_version()}

    @cached_property
    def _environment(self) -> dict[str, Any]:
        import transformers
        from lm_eval.loggers.utils import add_tokenizer_info

        found: dict[str, Any] = {
            "git_hash": None,
            "transformers_version": transformers.__version__,
            "lm_eval_version": version("lm-eval"),
        }
        add_tokenizer_info(found, self._lm)
        return found


def _as_logged(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample in the form in which the harness writes it."""
    from lm_eval.utils import sanitize_list

    return {
        **sample,
        "arguments": {
            f"gen_args_{number}": {f"arg_{place}": one for place, one in enumerate(arguments)}
            for number, arguments in enumerate(sample["arguments"])
        },
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
        "target": str(sample["target"]),
    }

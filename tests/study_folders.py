"""Folders of studies in the runner's form, of results made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile, write_neurons
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.folder import Outcome, StudyFolder
from lm_eval_amplify.sweep.store import Unit

NAN = math.nan
UNAMPLIFIED = Condition()


def treatment(factor: float = 1.0, operation: str = "set", statistic: str = "max", **options: Any) -> Condition:
    return Condition(Intervention(operation, factor, statistic, **options))


class Made:
    """A study that is put together unit by unit, then recorded."""

    def __init__(self, path: Path, languages: Sequence[str]) -> None:
        self.path = path
        self.languages = list(languages)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.units: list[Unit] = []
        self._folder = StudyFolder(path)

    def put(
        self,
        stage: str,
        task: str,
        condition: Condition,
        leaves: Mapping[str, tuple[str | None, Mapping[str, Sequence[Any]]]],
        *,
        values: Mapping[str, float] | None = None,
        documents: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        two_sided: bool = False,
        higher_is_better: bool = True,
    ) -> Unit:
        """Write a unit: for each task its language, and by metric what each document has."""
        results: dict[str, Any] = {}
        samples: dict[str, list[dict[str, Any]]] = {}
        for leaf, (_, metrics) in leaves.items():
            number = len(next(iter(metrics.values())))
            results[leaf] = {"alias": leaf}
            for metric, own in metrics.items():
                value = (values or {}).get(f"{leaf}/{metric}", _mean(own))
                results[leaf] |= {f"{metric},none": value, f"{metric}_stderr,none": "N/A"}
            samples[leaf] = [
                {
                    "doc_id": i,
                    "doc": (documents or {}).get(leaf, [{}] * number)[i],
                    "filter": "none",
                    "metrics": list(metrics),
                    "doc_hash": f"{leaf}{i}",
                }
                | {metric: own[i] for metric, own in metrics.items()}
                for i in range(number)
            ]
        content = {
            "results": results,
            "group_subtasks": {task: list(leaves)} if list(leaves) != [task] else {},
            "configs": {leaf: {"task": leaf} for leaf in leaves},
            "versions": dict.fromkeys(leaves, 1.0),
            "n-shot": dict.fromkeys(leaves, 0),
            "higher_is_better": {leaf: dict.fromkeys(m, higher_is_better) for leaf, (_, m) in leaves.items()},
            "n-samples": {leaf: {"original": len(own), "effective": len(own)} for leaf, own in samples.items()},
            "config": {"model": "amplified_hf", "model_args": {"pretrained": "toy"}},
            "date": 1767323045.0,
        }
        unit = Unit(stage, task, condition)
        self._folder.put(unit, f"of {unit.path}", {}, Outcome(content, samples))
        self.units.append(unit)
        entry = self.tasks.setdefault(task, {"leaves": {}, "two_sided": two_sided})
        entry["leaves"] |= {leaf: language for leaf, (language, _) in leaves.items()}
        return unit

    def put_lss(
        self, condition: Condition, steered: Mapping[str, Mapping[str, Sequence[float]]], *, stage: str = "sweep"
    ) -> Unit:
        """Write an LSS unit: by base and target language 1, 0 or NaN of each fact."""
        leaves = {
            f"amplify_lss_{base}": (base, {f"lss_{target}": own for target, own in targets.items()})
            for base, targets in steered.items()
        }
        return self.put(stage, "amplify_lss", condition, leaves, two_sided=True)

    def put_accuracy(self, condition: Condition, right: Mapping[str, Sequence[float]], *, stage: str = "then") -> Unit:
        """Write a unit of XCOPA: by language 1 or 0 of each document."""
        leaves = {f"amplify_xcopa_{language}": (language, {"acc": own}) for language, own in right.items()}
        return self.put(stage, "amplify_xcopa", condition, leaves)

    def put_perplexity(
        self, condition: Condition, bits: Mapping[str, float], *, stage: str = "then", task: str = "amplify_flores_ppl"
    ) -> Unit:
        """Write a unit of texts: by language bits per byte, the same of each of two texts."""
        leaves = {}
        values = {}
        for language, value in bits.items():
            pairs = [(-value * math.log(2) * size, size) for size in (10, 30)]
            leaves[f"{task}_{language}"] = (language, {"bits_per_byte": pairs})
            values[f"{task}_{language}/bits_per_byte"] = value
        return self.put(stage, task, condition, leaves, values=values, higher_is_better=False)

    def put_written(
        self, condition: Condition, base: str, written: Mapping[str, Sequence[tuple[str, str]]], *, stage: str = "then"
    ) -> Unit:
        """Write a unit of language ID: by target what each text counts as, amplified and unamplified."""
        number = len(next(iter(written.values())))
        documents = [
            {
                "base_language": base,
                "written": {
                    "amplified": {target: _judged(texts[i][0]) for target, texts in written.items()},
                    "unamplified": _judged(next(iter(written.values()))[i][1]),
                },
            }
            for i in range(number)
        ]
        leaf = f"amplify_lss_langid_{base}"
        rates = {
            f"target_rate_{target}": [float(text == target) for text, _ in texts] for target, texts in written.items()
        }
        return self.put(
            *(stage, "amplify_lss_langid", condition, {leaf: (base, rates)}),
            documents={leaf: documents},
            two_sided=True,
        )

    def put_neurons(self, per_layer: Mapping[str, Sequence[int]]) -> None:
        """Write the neuron file: by language how many in each layer."""
        neurons = {
            language: LanguageNeurons(
                np.repeat(np.arange(len(counts)), counts).astype(np.int32),
                np.concatenate([np.arange(count) for count in counts]).astype(np.int32),
            )
            for language, counts in per_layer.items()
        }
        manifest = Manifest(
            num_layers=len(next(iter(per_layer.values()))),
            intermediate_size=512,
            method="lape",
            package_version="0",
            languages=tuple(per_layer),
        )
        write_neurons(NeuronFile(manifest, neurons), self.path / "neurons.safetensors")

    def record(self, chosen: Mapping[str, Any] | None = None, *, missing: Iterable[Unit] = (), **entries: Any) -> Path:
        """Write study.json and return the folder."""
        units = [unit.as_dict() | {"fingerprint": f"of {unit.path}"} for unit in dict.fromkeys([*self.units, *missing])]
        content = {
            "name": "toy",
            "study": {"name": "toy"},
            "model": "toy-model",
            "package_version": "0.1.0",
            "languages": self.languages,
            "tasks": self.tasks,
            "units": units,
            "chosen": chosen,
        }
        self._folder.write_record(json.loads(json.dumps(content | entries)))
        return self.path


def choice(
    condition: Condition | None,
    value: float | None = None,
    held_out: float | None = None,
    random: Sequence[float] | None = None,
    damage: float | None = None,
) -> dict[str, Any]:
    """What the record has of a language's choice."""
    return {
        "condition": condition and condition.as_dict(),
        "value": value,
        "held_out": held_out,
        "random": random and dict(zip(("mean", "min", "max"), random, strict=True)),
        "damage": damage,
        "candidates": [],
    }


def chosen(languages: Mapping[str, Any], **entries: Any) -> dict[str, Any]:
    """What the record has of the choice."""
    return {
        "metric": "lss",
        "task": "amplify_lss",
        "split": "half",
        "limit": {"bits_per_byte": {"ratio": 1.2}},
        "limit_task": "amplify_flores_ppl",
        "languages": dict(languages),
    } | entries


def _judged(counts_as: str) -> dict[str, Any]:
    """``none``: of a text in no language."""
    is_none = counts_as == "none"
    return {"text": "", "counts_as": "other" if is_none else counts_as, "why_other": "repeats" if is_none else None}


def _mean(values: Sequence[Any]) -> float:
    known = [value for value in values if not isinstance(value, tuple) and not math.isnan(value)]
    return sum(known) / len(known) if known else NAN

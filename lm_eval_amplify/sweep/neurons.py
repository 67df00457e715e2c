"""The neurons of a study: read or found, with random ones to compare, kept in the study's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval_amplify.errors import AmplifyError, StudyError
from lm_eval_amplify.identify import Keeping, Texts, add_statistics, identify, make_method, open_corpus, usual_tokens
from lm_eval_amplify.identify.activations import Report
from lm_eval_amplify.identify.statistics import STATISTICS, check_statistics
from lm_eval_amplify.models.hf import AmplifiedHFLM
from lm_eval_amplify.neurons import NeuronFile, locate_neurons, read_neurons, write_neurons
from lm_eval_amplify.neurons.random_control import random_control
from lm_eval_amplify.provenance import neuron_file_hash, package_version
from lm_eval_amplify.sweep.conditions import Condition
from lm_eval_amplify.sweep.folder import writing
from lm_eval_amplify.sweep.store import digest_of
from lm_eval_amplify.sweep.study import Identify, Study
from lm_eval_amplify.sweep.study_file import StudyFile
from lm_eval_amplify.sweep.units import NeuronFiles
from lm_eval_amplify.whole_files import whole_file

OWN = "neurons.safetensors"
_KEYS = "neurons.json"


def neurons_of(
    file: StudyFile, folder: Path, lm: AmplifiedHFLM, conditions: Sequence[Condition], report: Report
) -> NeuronFiles:
    """Return the study's neuron file and its controls', as they lie in the folder; what is missing there is made.

    Args:
        file: The study.
        folder: Its folder, which exists.
        lm: The model, unamplified.
        conditions: The grid, which says what statistics the controls need.
        report: Told about progress.

    Raises:
        AmplifyError: A file or corpus is missing or wrong, does not fit the model, or the folder cannot be written.
    """
    study = file.study
    keeper = _Keeper(folder)
    if study.neurons is not None:
        own = keeper.copied(locate_neurons(study.neurons))
    else:
        assert study.identify is not None  # noqa: S101  # the study has one of the two
        own = _found(file, study.identify, keeper, lm, report)
    files: dict[int | None, tuple[str, NeuronFile]] = {None: (study.neurons or OWN, own)}
    for seed in sorted({*study.controls.random, *(study.then.random if study.then else ())}):
        name = f"random-{seed}.safetensors"
        files[seed] = (name, _control(file, seed, name, own, keeper, lm, conditions, report))
    return files


class _Keeper:
    """Neuron files in a folder, and of what each was made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def copied(self, path: Path) -> NeuronFile:
        content = path.read_bytes()
        target = self.folder / OWN
        if not target.exists() or target.read_bytes() != content:
            with writing(target), whole_file(target) as file:
                file.write(content)
        return read_neurons(target)

    def get(self, name: str, key: str) -> NeuronFile | None:
        """What was made of the same, if it is whole."""
        known = self._known().get(name)
        if known is None or known["of"] != key:
            return None
        try:
            found = read_neurons(self.folder / name)
        except AmplifyError:
            return None
        return found if found.sha256 == known["sha256"] else None

    def put(self, name: str, key: str, content: NeuronFile) -> NeuronFile:
        with writing(self.folder / name):
            write_neurons(content, self.folder / name)
            found = read_neurons(self.folder / name)
            known = self._known() | {name: {"of": key, "sha256": found.sha256}}
            with whole_file(self.folder / _KEYS) as file:
                file.write(json.dumps(known, indent=2, sort_keys=True).encode())
        return found

    def keeping(self, lm: AmplifiedHFLM) -> Keeping:
        """Keeps what is found of each language until the whole file is there."""
        return Keeping(self.folder / "counts", f"{lm.provenance['model']} {lm.model.dtype}")

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads((self.folder / _KEYS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _found(file: StudyFile, how: Identify, keeper: _Keeper, lm: AmplifiedHFLM, report: Report) -> NeuronFile:
    keeping = keeper.keeping(lm)
    codes = how.languages or file.study.languages or ()
    key = digest_of(
        how.model_dump(mode="json"), list(codes), keeping.identity, package_version(), _state_of(how.corpus)
    )
    found = keeper.get(OWN, key)
    if found is not None:
        return found
    named = ("top_rate", "filter_rate", "activation_bar_ratio", "top_k", "seed")
    try:
        method = make_method(how.method, {name: getattr(how, name) for name in named})
        statistics = STATISTICS if how.statistics is None else check_statistics(how.statistics)
        texts = _texts(how, how.corpus, how.tokens)
        content = identify(
            lm.model,
            lm.tokenizer,
            texts,
            texts.resolve(codes),
            method=method,
            statistics=statistics,
            model_name=model_name(file.study),
            report=report,
            keeping=keeping,
        )
    except AmplifyError as error:
        raise file.located.error(("identify",), str(error)) from error
    kept = keeper.put(OWN, key, content)
    keeping.clear()
    return kept


def _control(
    file: StudyFile,
    seed: int,
    name: str,
    own: NeuronFile,
    keeper: _Keeper,
    lm: AmplifiedHFLM,
    conditions: Sequence[Condition],
    report: Report,
) -> NeuronFile:
    controls = file.study.controls
    needed = {one.intervention.needs_statistic for one in conditions if one.intervention is not None}
    # All that the file has, so that a condition that is added later finds what it needs.
    statistics = [name for name in STATISTICS if name in own.statistics] if needed - {None} else []
    corpus, tokens = _source(file, own) if statistics else (None, None)
    state = _state_of(corpus) if corpus is not None else None
    model = lm.provenance["model"]
    key = digest_of(neuron_file_hash(own), seed, statistics, corpus, tokens, model, package_version(), state)
    found = keeper.get(name, key)
    if found is not None:
        return found
    keeping = keeper.keeping(lm)
    try:
        content = random_control(own, seed, intermediate_size=own.manifest.intermediate_size)
        if statistics and corpus is not None:
            how = file.study.identify or Identify(corpus=corpus, allow_short=True)
            texts = _texts(how, corpus, tokens)
            content = add_statistics(
                content, lm.model, lm.tokenizer, texts, statistics=statistics, report=report, keeping=keeping
            )
    except AmplifyError as error:
        place = ("controls", "corpus") if controls.corpus else ("controls", "random")
        raise file.located.error(place, str(error)) from error
    kept = keeper.put(name, key, content)
    keeping.clear()
    return kept


def _source(file: StudyFile, own: NeuronFile) -> tuple[str, int | None]:
    """The texts for the controls' statistics: what the study names, else what the neurons were found on."""
    controls, how, manifest = file.study.controls, file.study.identify, own.manifest
    corpus = controls.corpus or (how.corpus if how else manifest.corpus)
    tokens = controls.tokens or (how.tokens if how else max(manifest.tokens.values(), default=None))
    if corpus is None:
        raise file.located.error(
            ("controls", "random"),
            "the random neurons need statistics, and the neuron file does not say on which texts its own were found: "
            "give controls.corpus (text:DIR, flores, babel, ...)",
        )
    return corpus, tokens


def _texts(how: Identify, corpus: str, tokens: int | None) -> Texts:
    opened = open_corpus(corpus)
    return Texts(
        opened,
        tokens or usual_tokens(opened),
        allow_short=how.allow_short,
        max_length=how.max_length,
        batch_size=how.batch_size,
        chat_template=how.chat_template,
    )


def model_name(study: Study) -> str:
    """Return the model's name as the study has it, or its neuron file.

    Raises:
        StudyError: Neither names one.
    """
    named = study.model.get("pretrained")
    if named is None and study.neurons is not None:
        named = read_neurons(locate_neurons(study.neurons)).manifest.model
    if named is None:
        raise StudyError("model: give pretrained, no neuron file names the model")
    return str(named)


def _state_of(corpus: str) -> list[Any]:
    """What tells that the texts in a local folder have changed."""
    folder = Path(corpus.partition(":")[2].partition("?")[0] or "/nowhere")
    files = sorted(one for one in folder.rglob("*") if one.is_file()) if folder.is_dir() else []
    return [[str(one.relative_to(folder)), one.stat().st_size, one.stat().st_mtime_ns] for one in files]

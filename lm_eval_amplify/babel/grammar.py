"""One language of babel's corpus: words, sentence templates and facts, and the drawing of sentences from them.

A language is a YAML file, all of whose scalars are text::

    words:
      animal:
        - {nom: собака, acc: собаку, g: f}
        - {nom: кот, acc: кота, g: m}
      big:
        - {m: большой, f: большая}
      person: [Анна, Иван]
    sentences:
      - "{big.[x.g]} {x=animal.nom} спит."
      - "{person} видит {animal.acc}."

``{class}`` draws an entry of a class of words, ``{class.form}`` one of its forms. ``{x=class.form}`` names the drawn
entry, ``{x.form}`` uses it again, before or after the place that draws it. A form may be put together from features of
named entries: ``{big.[x.g]}``, ``{verb.past_[x.g]}``. Sentences begin with a capital where the script has them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from lm_eval_amplify.errors import DataError, did_you_mean

Entry: TypeAlias = "str | Mapping[str, str]"
"""A word: one text, or texts and features by name of the form."""

_SLOT = re.compile(r"\{(?:(?P<name>[a-z]\d?)=)?(?P<source>\w+)(?:\.(?P<form>[\w\[\].]+))?\}")
_FEATURE = re.compile(r"\[(\w+)\.(\w+)\]")
_SENTENCE_START = re.compile(r"(?:^|[.!?…] )[¿¡«\"“(]*\w")


@dataclass(frozen=True)
class FactText:
    """A fact in one language."""

    template: str
    """With ``[X]`` for the subject and ``[Y]`` for the object."""
    subject: str
    """As it stands in the template."""
    object: str
    """As it stands in the template."""

    def sentence(self) -> str:
        """Return the filled template."""
        return self.template.replace("[X]", self.subject).replace("[Y]", self.object)


@dataclass(frozen=True)
class Grammar:
    """What a language's sentences are drawn from.

    Raises:
        DataError: A template names a class or a form that is not there.
    """

    language: str
    """FLORES-200 code."""
    words: Mapping[str, Sequence[Entry]]
    """By class."""
    sentences: Sequence[str]
    """Templates."""
    facts: Mapping[str, FactText]
    """By key, ``relation/subject``."""

    def draw(self, rng: random.Random, template: str | None = None) -> str:
        """Return a sentence drawn at random, of one template or of any."""
        template = rng.choice(self.sentences) if template is None else template
        slots = list(_SLOT.finditer(template))
        named = {slot["name"]: self._choose(slot["source"], template, rng) for slot in slots if slot["name"]}
        pieces, end = [], 0
        for slot in slots:
            entry = named.get(slot["name"] or slot["source"])
            if entry is None:
                entry = self._choose(slot["source"], template, rng)
            pieces += [template[end : slot.start()], self._form(entry, slot, named, template)]
            end = slot.end()
        text = "".join([*pieces, template[end:]])
        if "{" in text or "}" in text:
            raise DataError(f"{self.language}: a slot that is not one in {template!r}")
        return _SENTENCE_START.sub(lambda start: _capital(start[0], self.language), text)

    def _choose(self, word_class: str, template: str, rng: random.Random) -> Entry:
        if word_class not in self.words:
            near = did_you_mean(word_class, self.words)
            raise DataError(f"{self.language}: no words {word_class!r}{near} for {template!r}")
        return rng.choice(self.words[word_class])

    def _form(self, entry: Entry, slot: re.Match[str], named: Mapping[str, Entry], template: str) -> str:
        form = slot["form"]
        if form is None:
            if isinstance(entry, str):
                return entry
            raise DataError(f"{self.language}: {slot[0]} needs a form of {dict(entry)} in {template!r}")
        for feature in _FEATURE.finditer(form):
            owner = named.get(feature[1])
            if not isinstance(owner, Mapping) or feature[2] not in owner:
                raise DataError(f"{self.language}: no feature {feature[0]} for {slot[0]} in {template!r}")
            form = form.replace(feature[0], owner[feature[2]])
        if isinstance(entry, str) or form not in entry:
            raise DataError(f"{self.language}: no form {form!r} of {entry} for {slot[0]} in {template!r}")
        return entry[form]


def read_grammar(path: Path) -> Grammar:
    """Read a language's file, ``<code>.yaml``.

    Raises:
        DataError: It is not of the form above.
    """
    raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  # all scalars are text
    facts = {}
    for relation, texts in raw["facts"].items():
        template = texts["template"]
        if template.count("[X]") != 1 or template.count("[Y]") != 1:
            raise DataError(f"{path.name}: facts: {relation}: expected one [X] and one [Y], got {template!r}")
        for key, pair in texts.items():
            if key != "template":
                subject, object_ = pair
                facts[f"{relation}/{key}"] = FactText(template, subject, object_)
    return Grammar(path.stem, raw["words"], raw["sentences"], facts)


def _capital(start: str, language: str) -> str:
    letter = "İ" if language == "tur_Latn" and start[-1] == "i" else start[-1].upper()
    return start[:-1] + letter

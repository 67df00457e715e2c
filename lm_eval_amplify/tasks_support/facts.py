"""From a fact and a template to what is asked of a model: the prompt, and each object as its continuation.

A template has ``[X]`` where the subject goes and ``[Y]`` where the object goes. Two wordings of it exist:

- ``cloze``: the prompt ends where ``[Y]`` stands, and the continuation is the object alone;
- ``paper``: what the code of Rahmanisa et al. 2025 (arXiv 2507.22581; github.com/tauimbz/lang-task-neuron)
  does: it deletes `` [Y]``, space included, and joins the object to the end with a space. Text behind
  ``[Y]`` (a full stop, a postposition) thus stays in the prompt, and ``[Y]`` itself does where no space
  precedes it, as in Chinese.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

SUBJECT = "[X]"
OBJECT = "[Y]"

Wording: TypeAlias = Literal["cloze", "paper"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)

_UNSPACED_SCRIPTS = frozenset({"Hans", "Hant", "Jpan", "Thai", "Laoo", "Khmr", "Mymr"})
"""Scripts (ISO 15924) that put no space between words."""

_NO_NAME = "-"
"""Stands for a missing name in requests whose answer no metric uses: a document must have some request."""


@dataclass(frozen=True)
class Fact:
    """One row: a template of the base language, and the names in several languages.

    Attributes:
        template: Text with ``[X]`` and ``[Y]``.
        subject: The subject's name in the base language; None: missing.
        objects: The object's name by FLORES-200 code, the base language's among them; None: missing.
        more: Further columns of the row, kept for the reader of logged samples.
    """

    template: str
    subject: str | None
    objects: Mapping[str, str | None]
    more: Mapping[str, Any]


class Cloze(NamedTuple):
    """A prompt, and what stands between it and the object."""

    prompt: str
    joint: str
    """A space, or nothing."""


def writes_spaces(language: str) -> bool:
    """Return whether a language (FLORES-200 code) puts spaces between words: a property of its script.

    >>> writes_spaces("ind_Latn"), writes_spaces("tha_Thai")
    (True, False)
    """
    return language.partition("_")[2] not in _UNSPACED_SCRIPTS


def fill_template(template: str, subject: str, language: str, wording: Wording = "cloze") -> Cloze | None:
    """Return the prompt for the object of ``subject``, or None where the wording has none.

    The joint follows the template: a space where it writes one before ``[Y]``, nothing where ``[Y]`` is
    attached to what precedes it (French ``l'[Y]``). In a script without spaces it is nothing in any case. The
    prompt itself never ends in a space, because the harness would move it into the continuation.

    Args:
        template: Text with ``[X]`` and ``[Y]``.
        subject: The subject's name.
        language: The template's language.
        wording: See the module; a ``cloze`` whose ``[X]`` comes after ``[Y]`` has no prompt that names the
            subject.

    >>> fill_template("La capitale de [X] est [Y].", "Italie", "fra_Latn")
    Cloze(prompt='La capitale de Italie est', joint=' ')
    >>> fill_template("[X]的首都是[Y]。", "法国", "zho_Hans")
    Cloze(prompt='法国的首都是', joint='')
    >>> fill_template("[X]的首都是[Y]。", "法国", "zho_Hans", "paper")
    Cloze(prompt='法国的首都是[Y]。', joint=' ')
    """
    if wording == "paper":
        return Cloze(template.replace(SUBJECT, subject).replace(f" {OBJECT}", ""), " ")
    before = template.partition(OBJECT)[0]
    if SUBJECT not in before:
        return None
    text = before.rstrip()
    joint = " " if text != before and writes_spaces(language) else ""
    return Cloze(text.replace(SUBJECT, subject), joint)


def same_name(one: str, other: str) -> bool:
    """Return whether two names are the same text after Unicode normalisation (NFC)."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def make_document(
    fact: Fact, base_language: str, targets: Sequence[str], wording: Wording = "cloze"
) -> dict[str, Any] | None:
    """Return the harness's document for a fact, or None where the wording has no prompt for it.

    Returns:
        ``prompt``; ``continuation`` (the object in the base language) and ``continuations`` (in each target,
        None where it cannot be compared with the former: a name is missing, or both are the same, except that
        ``paper`` compares equal ones), all with their joint; ``targets``; ``base_language``; and the fact
        itself.
    """
    names = {language: fact.objects[language] for language in (base_language, *targets)}
    subject = fact.subject
    if wording == "cloze":  # the paper's code takes names as they are
        names = {language: name and name.strip() for language, name in names.items()}
        subject = subject and subject.strip()
    cloze = fill_template(fact.template, subject or _NO_NAME, base_language, wording)
    if cloze is None:
        return None
    own = names[base_language]

    def continuation(name: str | None) -> str | None:
        if not (subject and own and name) or (wording == "cloze" and same_name(name, own)):
            return None
        return cloze.joint + name

    return {
        **fact.more,
        "base_language": base_language,
        "template": fact.template,
        "subject": subject,
        "object": own,
        "objects": {target: names[target] for target in targets},
        "prompt": cloze.prompt,
        "continuation": cloze.joint + (own or _NO_NAME),
        "continuations": {target: continuation(names[target]) for target in targets},
        "targets": list(targets),
    }

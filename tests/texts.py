"""Corpora in memory and on disk for tests of identification."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from lm_eval_amplify.errors import DataError

LANGUAGES = ("est_Latn", "ind_Latn", "tam_Taml", "zho_Hans")

_WORDS = {
    "est_Latn": ["mees", "avas", "kraani", "seetõttu", "voolas", "vesi", "õues", "öösel", "ükskord"],
    "ind_Latn": ["pria", "itu", "membuka", "keran", "maka", "airnya", "mengalir", "di", "rumah", "besar"],
    "tam_Taml": ["அந்த", "மனிதன்", "குழாயைத்", "திறந்தான்", "எனவே", "தண்ணீர்", "ஓடியது"],
    "zho_Hans": ["那个", "男人", "打开了", "水龙头", "所以", "水", "流了", "出来"],
}


def sentences(language: str, number: int = 24, seed: int = 0) -> list[str]:
    """Sentences of 1 to 12 words."""
    draw = random.Random(f"{language} {seed}")
    return [" ".join(draw.choices(_WORDS[language], k=draw.randint(1, 12))) for _ in range(number)]


class InMemory:
    """A corpus of lists."""

    def __init__(self, documents: Mapping[str, list[str]]) -> None:
        self.name = "memory"
        self._documents = documents

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted(self._documents))

    def check(self, language: str) -> None:
        if language not in self._documents:
            raise DataError(f"no texts in {language}")

    def documents(self, language: str) -> Iterator[str]:
        return iter(self._documents[language])


def folder(path: Path, languages: tuple[str, ...] = LANGUAGES, number: int = 24) -> Path:
    """A folder for ``text:DIR``."""
    path.mkdir(parents=True, exist_ok=True)
    for language in languages:
        text = "".join(f"{sentence}\n" for sentence in sentences(language, number))
        (path / f"{language}.txt").write_text(text, encoding="utf-8")
    return path

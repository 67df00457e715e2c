"""Texts by language: what a corpus is, and the plainest one, a folder with a text file per language."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from lm_eval_amplify.errors import DataError, LanguageError, did_you_mean
from lm_eval_amplify.languages import canonical_language

_SUFFIXES = (".txt", ".txt.gz")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Corpus(Protocol):
    """Documents in several languages, read as a stream, in the same order each time."""

    @property
    def name(self) -> str:
        """What a user names the corpus by; recorded in the neuron file."""

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it has, as FLORES-200 codes, sorted."""

    def check(self, language: str) -> None:
        """Check, without reading all of it, that there are texts of a language.

        Raises:
            DataError: There are none; says what was looked for.
        """

    def documents(self, language: str) -> Iterator[str]:
        """Yield the documents of a language, none of them empty.

        Raises:
            DataError: There are none, or they cannot be read or decoded; names the place.
        """


class TextFolder:
    """``text:DIR``: ``DIR/<language>.txt[.gz]`` in UTF-8, a document a line; blank lines are skipped.

    A file is found by any name of its language: ``ind_Latn.txt``, ``id.txt`` and ``Indonesian.txt.gz`` are
    one. Files whose names are no language's are left alone.

    Raises:
        DataError: On construction: there is no such folder.
    """

    def __init__(self, folder: str) -> None:
        self.name = f"text:{folder}"
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise DataError(f"corpus {self.name}: there is no folder {folder}")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that there are files of, sorted."""
        return tuple(sorted(self._files))

    def check(self, language: str) -> None:
        """Check that there is one file of a language, and that it is not empty.

        Raises:
            DataError: There is none, or several, or it is empty.
        """
        path = self._path(language)
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty: expected texts in {language}, a document a line")

    def documents(self, language: str) -> Iterator[str]:
        """Yield the lines of a language's file, without the blank ones.

        Raises:
            DataError: There is no file, it cannot be read, is not UTF-8 (names the line), or holds no text.
        """
        path = self._path(language)
        empty = True
        for number, line in _numbered_lines(path):
            try:
                text = line.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: byte {line[error.start]:#04x} at {error.start} is not valid "
                    "UTF-8; convert the file to UTF-8"
                ) from None
            if text:
                empty = False
                yield text
        if empty:
            raise DataError(f"{path} is empty: expected texts in {language}, a document a line")

    @cached_property
    def _files(self) -> Mapping[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for path in sorted(self._folder.iterdir()):
            suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), None)
            if suffix is None or not path.is_file():
                continue
            try:
                code = canonical_language(path.name.removesuffix(suffix))
            except LanguageError:
                continue
            files.setdefault(code, []).append(path)
        return files

    def _path(self, language: str) -> Path:
        paths = self._files.get(language, [])
        if not paths:
            there = f"there are {', '.join(self.languages)}" if self._files else "it has no file of any language"
            raise DataError(
                f"corpus {self.name} has no {language}.txt or {language}.txt.gz"
                f"{did_you_mean(language, self.languages)}: {there}"
            )
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"corpus {self.name} has several files of {language}: {names}; keep one")
        return paths[0]


_KINDS: Mapping[str, Callable[[str], Corpus]] = {"text": TextFolder}


def open_corpus(address: str) -> Corpus:
    """Return the corpus that an address such as ``text:DIR`` names.

    Raises:
        DataError: The address has another form, or there is no such corpus.
    """
    kind, colon, rest = address.partition(":")
    if not colon or not rest or kind not in _KINDS:
        raise DataError(f"corpus {address!r}{did_you_mean(kind, _KINDS)}: expected text:DIR with DIR/<language>.txt")
    return _KINDS[kind](rest)


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; as bytes, so that a line's number is known if it is not UTF-8."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(cast("BinaryIO", file), start=1):
                yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error

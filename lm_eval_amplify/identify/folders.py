"""Corpora that are folders with a file per language: lines of text, or JSON lines."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

from lm_eval_amplify.errors import DataError, LanguageError, did_you_mean
from lm_eval_amplify.identify.address import options_of
from lm_eval_amplify.languages import canonical_language

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _LanguageFolder:
    """``DIR/<language><suffix>`` in UTF-8, a document a line; blank lines and empty documents are skipped.

    A file is found by any name of its language: ``ind_Latn.txt``, ``id.txt`` and ``Indonesian.txt.gz`` are
    one. Files whose names are no language's are left alone.

    Raises:
        DataError: On construction: there is no such folder.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    def __init__(self, folder: str) -> None:
        self.name = f"{self.kind}:{folder}"
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
        """Yield the documents of a language's file.

        Raises:
            DataError: There is no file, it cannot be read, a line is not what it should be (names it), or there is
                no text.
        """
        path = self._path(language)
        empty = True
        for number, line in _numbered_lines(path):
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: byte {line[error.start]:#04x} at {error.start} is not valid "
                    "UTF-8; convert the file to UTF-8"
                ) from None
            if not decoded.strip():
                continue
            try:
                text = self._text(decoded)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            if text:
                empty = False
                yield text
        if empty:
            raise DataError(f"{path} is empty: expected texts in {language}, a document a line")

    def _text(self, line: str) -> str:
        """The document of a line.

        Raises:
            ValueError: It holds none.
        """
        raise NotImplementedError

    @cached_property
    def _files(self) -> Mapping[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for path in sorted(self._folder.iterdir()):
            suffix = next((suffix for suffix in self.suffixes if path.name.endswith(suffix)), None)
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
            expected = " or ".join(f"{language}{suffix}" for suffix in self.suffixes)
            raise DataError(f"corpus {self.name} has no {expected}{did_you_mean(language, self.languages)}: {there}")
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"corpus {self.name} has several files of {language}: {names}; keep one")
        return paths[0]


class TextFolder(_LanguageFolder):
    """``text:DIR``: ``DIR/<language>.txt[.gz]``, a document a line."""

    kind = "text"
    suffixes = (".txt", ".txt.gz")

    def _text(self, line: str) -> str:
        return line.strip()


class JsonLinesFolder(_LanguageFolder):
    """``jsonl:DIR``: ``DIR/<language>.jsonl[.gz]``, an object a line; ``jsonl:DIR?text=NAME`` if not in ``text``.

    Raises:
        DataError: On construction: there is no such folder, or an option of another name.
    """

    kind = "jsonl"
    suffixes = (".jsonl", ".jsonl.gz")

    def __init__(self, place: str) -> None:
        folder, options = options_of(f"{self.kind}:", place, {"text": "text"})
        super().__init__(folder)
        self.name = f"{self.kind}:{place}"
        self._field = options["text"]

    def _text(self, line: str) -> str:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"invalid JSON ({error.msg})") from None
        if not isinstance(row, dict) or not isinstance(row.get(self._field), str):
            fields = did_you_mean(self._field, row) if isinstance(row, dict) else ""
            raise ValueError(  # noqa: TRY004  # whatever is wrong with a line is told in one way
                f"expected an object with a text in {self._field!r}{fields}; name another field with "
                f"{self.kind}:DIR?text=NAME"
            )
        return str(row[self._field]).strip()


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; as bytes, so that a line's number is known if it is not UTF-8."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(cast("BinaryIO", file), start=1):
                yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error

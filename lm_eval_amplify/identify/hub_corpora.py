"""Corpora of the Hub or a local mirror of it: FLORES, and any dataset with a text column and a config per language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from lm_eval_amplify.errors import DataError, LanguageError, did_you_mean
from lm_eval_amplify.identify.address import options_of
from lm_eval_amplify.languages import canonical_language, language_table


class Flores:
    """``flores`` or ``flores:MIRROR``: the dev sentences of FLORES, 997 in each of some 200 languages.

    The devtest sentences are left for measuring. From the mirror named, else the mirror in force, else the Hub.
    """

    usual_tokens: ClassVar[int] = 20_000
    """What 997 sentences hold with most tokenizers in most languages."""

    def __init__(self, mirror: str) -> None:
        self.name = f"flores:{mirror}" if mirror else "flores"
        self._mirror = mirror or None
        self._sentences: dict[str, Iterable[str]] = {}

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of the mirror, sorted.

        Raises:
            DataError: There is no mirror: some 200 languages are too many to be meant.
        """
        from lm_eval_amplify.data.mirror import mirror_folder
        from lm_eval_amplify.data.sources import FLORES_200, FLORES_PLUS

        mirror = mirror_folder(self._mirror)
        if mirror is None:
            raise DataError(f"corpus {self.name} has some 200 languages: name those wanted, with --languages")
        found = {code for dataset in (FLORES_PLUS, FLORES_200) for code in _folders_by_language(mirror / dataset)}
        if not found:
            raise DataError(f"corpus {self.name}: there is no FLORES in {mirror}, in {FLORES_PLUS} or {FLORES_200}")
        return tuple(sorted(found))

    def check(self, language: str) -> None:
        """Load the sentences of a language, which are few.

        Raises:
            DataError: They cannot be had.
        """
        from lm_eval_amplify.data.sources import FLORES_PLUS, flores_plus_code
        from lm_eval_amplify.data.splits import load_splits

        if language not in self._sentences:
            rows = load_splits(FLORES_PLUS, flores_plus_code(language), ["dev"], self._mirror)["dev"]
            self._sentences[language] = rows["sentence"]

    def documents(self, language: str) -> Iterator[str]:
        """Yield the sentences of a language.

        Raises:
            DataError: They cannot be had.
        """
        self.check(language)
        yield from (sentence.strip() for sentence in self._sentences[language])


class HubDataset:
    """``hub:ORG/NAME``: a dataset of the Hub, or a local folder of the Hub's form, with a config per language.

    Options behind a ``?``, joined with ``&``: ``text``, the column with the text (default ``text``); ``split``
    (default ``train``); ``config``, the config's name with ``{code}``, ``{iso639_1}``, ``{iso639_3}`` or ``{name}``
    for the language, as ``20231101.{iso639_1}``. By default the config that has a name of the language. Rows come as
    a stream; from a mirror in force (``LM_EVAL_AMPLIFY_DATA_DIR``) they are read whole.

    Raises:
        DataError: On construction: an option is unknown.
    """

    def __init__(self, address: str) -> None:
        self.name = f"hub:{address}"
        self._path, options = options_of("hub:", address, {"text": "text", "split": "train", "config": ""})
        self._text, self._split, self._template = options["text"], options["split"], options["config"]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that configs are named by, sorted.

        Raises:
            DataError: They cannot be listed.
        """
        if self._template:
            raise DataError(f"corpus {self.name} gives its configs a form: name the languages, with --languages")
        return tuple(sorted(self._configs))

    def check(self, language: str) -> None:
        """Read the first text of a language.

        Raises:
            DataError: There is none.
        """
        next(self.documents(language))

    def documents(self, language: str) -> Iterator[str]:
        """Yield the texts of a language that are not empty.

        Raises:
            DataError: The dataset or the column is not there, a row has no text, or none has.
        """
        config = self._config(language)
        place = f"{self._path} ({config}), split {self._split}"
        empty = True
        for number, row in enumerate(self._rows(config, place), start=1):
            text = row.get(self._text)
            if not isinstance(text, str):
                raise DataError(
                    f"corpus {self.name}: {place}, row {number} has no text in {self._text!r}"
                    f"{did_you_mean(self._text, row)}; it has {', '.join(row)}; name the column with ?text=NAME"
                )
            if text.strip():
                empty = False
                yield text.strip()
        if empty:
            raise DataError(f"corpus {self.name}: {place} holds no text")

    @cached_property
    def _configs(self) -> Mapping[str, str]:
        """Configs by language."""
        from lm_eval_amplify.data.mirror import mirror_folder

        mirror = mirror_folder(None)
        if mirror is not None:
            return _folders_by_language(mirror / self._path)
        import datasets

        try:
            return _by_language(datasets.get_dataset_config_names(self._path))
        except Exception as error:  # some twenty types, from connection to parsing
            raise _unreachable(self.name, self._path, error) from error

    def _config(self, language: str) -> str:
        if self._template:
            row = language_table().get(language)
            names = {
                "code": language,
                "iso639_1": row.iso639_1 if row else "",
                "iso639_3": language.partition("_")[0],
                "name": row.name if row else language,
            }
            try:
                return self._template.format_map(names)
            except (KeyError, ValueError, IndexError):
                known = ", ".join(f"{{{name}}}" for name in names)
                raise DataError(f"corpus {self.name}: config {self._template!r} is not made of {known}") from None
        if language not in self._configs:
            known = ", ".join(sorted(self._configs)) or "none of any language"
            raise DataError(
                f"corpus {self.name} has no config of {language}{did_you_mean(language, self._configs)}; "
                f"it has {known}; say how configs are named with ?config=..."
            )
        return self._configs[language]

    def _rows(self, config: str, place: str) -> Iterator[Mapping[str, Any]]:
        from lm_eval_amplify.data.files import read_rows
        from lm_eval_amplify.data.mirror import find_split, mirror_folder

        mirror = mirror_folder(None)
        if mirror is not None:
            yield from read_rows(find_split(mirror, self._path, config, self._split))
            return
        import datasets

        try:
            yield from datasets.load_dataset(self._path, config, split=self._split, streaming=True)
        except Exception as error:  # some twenty types, from connection to parsing
            raise _unreachable(self.name, place, error) from error


def _unreachable(name: str, place: str, error: Exception) -> DataError:
    from lm_eval_amplify.data.mirror import DATA_DIR

    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return DataError(f"corpus {name}: cannot read {place}: {reason}; without a network give a mirror, {DATA_DIR}=DIR")


def _folders_by_language(folder: Path) -> dict[str, str]:
    return _by_language(sorted(path.name for path in folder.glob("*") if path.is_dir()))


def _by_language(configs: Iterable[str]) -> dict[str, str]:
    """Those configs that are named by a language, by its code; of two of one language the first."""
    found: dict[str, str] = {}
    for config in configs:
        with suppress(LanguageError):
            found.setdefault(canonical_language(config), config)
    return found

"""What is known of the datasets that our tasks read: columns, numbers of rows, rows that cannot be scored, places.

Nothing here loads anything. Numbers of rows: Ponti et al. 2020 for XCOPA, the dataset cards for XWinograd and FLORES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lm_eval_amplify.languages import canonical_language

FLORES_PLUS = "openlanguagedata/flores_plus"
FLORES_200 = "facebook/flores"
DEVTEST = "devtest"
"""The split of FLORES that is measured on; ``dev`` is there to choose settings by."""

# Where FLORES+ writes a language otherwise than FLORES-200 did.
_FLORES_PLUS_CODES = {
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "tgl_Latn": "fil_Latn",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}


def flores_plus_code(code: str) -> str:
    """Return the config of FLORES+ for a FLORES-200 code.

    >>> flores_plus_code("zho_Hans"), flores_plus_code("ind_Latn")
    ('cmn_Hans', 'ind_Latn')
    """
    return _FLORES_PLUS_CODES.get(code, code)


class Place(NamedTuple):
    """Where a mirror may hold a dataset."""

    path: str
    """``<org>/<name>``."""
    config: str
    """The folder in it."""


class Fault(NamedTuple):
    """What is wrong with a row."""

    what: str
    """For a message that names the row: ``column 'choice1' is empty``."""
    is_fatal: bool = True
    """Whether the row cannot be scored; otherwise it is worth a warning."""


Row = Mapping[str, Any]


def _nothing(_row: Row) -> Fault | None:
    return None


def _only_there(path: str, config: str) -> tuple[Place, ...]:
    return (Place(path, config),)


@dataclass(frozen=True)
class Source:
    """A dataset as its tasks need it."""

    columns: tuple[str, ...] = ()
    """Columns that must be there, by the names that documents have."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Columns that the Hub calls otherwise: the Hub's name to the documents'."""
    rows: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)
    """Known numbers of rows by split: of every config, or by config."""
    fault_of: Callable[[Row], Fault | None] = _nothing
    """Finds what is wrong with a row that has all columns."""
    places: Callable[[str, str], tuple[Place, ...]] = _only_there
    """The places of a mirror that may hold ``(hub_path, config)``; any one of them will do."""
    is_gated: bool = False
    """Whether the Hub gives it only to users who are logged in and have accepted its terms."""
    json_files: str | None = None
    """Files on the Hub with the same rows, for when the dataset itself needs a script: ``{split}/{config}.jsonl``."""

    def known_rows(self, config: str, split: str) -> int | None:
        """Return how many rows a split is known to have."""
        known = self.rows.get(split)
        return known.get(config) if isinstance(known, Mapping) else known


def source_of(hub_path: str) -> Source:
    """Return what is known of a dataset; of another one, nothing."""
    return _SOURCES.get(hub_path, _UNKNOWN)


def _is_blank(value: Any) -> bool:
    return not isinstance(value, str) or not value.strip()


def _blank(row: Row, columns: tuple[str, ...]) -> Iterator[Fault]:
    for column in columns:
        if _is_blank(row[column]):
            yield Fault(f"column {column!r} holds {row[column]!r}, expected a text")


def _not_one_of(row: Row, column: str, allowed: tuple[Any, ...]) -> Iterator[Fault]:
    if row[column] not in allowed or isinstance(row[column], bool):
        yield Fault(f"column {column!r} holds {row[column]!r}, expected {' or '.join(map(repr, allowed))}")


def _first(*faults: Iterator[Fault]) -> Fault | None:
    return next((fault for found in faults for fault in found), None)


def _xcopa_fault(row: Row) -> Fault | None:
    return _first(
        _blank(row, ("premise", "choice1", "choice2")),
        _not_one_of(row, "question", ("cause", "effect")),
        _not_one_of(row, "label", (0, 1)),
    )


def _xwinograd_fault(row: Row) -> Fault | None:
    def gap() -> Iterator[Fault]:
        if "_" not in row["sentence"]:
            yield Fault(f"column 'sentence' has no '_' to put an option in: {row['sentence']!r}")

    return _first(_blank(row, ("sentence", "option1", "option2")), gap(), _not_one_of(row, "answer", ("1", "2")))


LETTERS = ("A", "B", "C", "D")
OPTION_COLUMNS = tuple(f"option_{letter.lower()}" for letter in LETTERS)


def _include_fault(row: Row, options: Any, column: str) -> Fault | None:
    """Letters are scored, so an empty option can be; published data may hold one, hence only a warning."""

    def wrong_options() -> Iterator[Fault]:
        texts = [option for option in options if isinstance(option, str)] if isinstance(options, list) else []
        if len(texts) != len(LETTERS) or len(texts) != len(options):
            yield Fault(f"{column} holds {options!r}, expected {len(LETTERS)} texts")

    def empty_option() -> Iterator[Fault]:
        for letter, option in zip(LETTERS, options, strict=True):
            if _is_blank(option):
                yield Fault(f"option {letter} is empty", is_fatal=False)

    return _first(
        _blank(row, ("question", "domain")),
        wrong_options(),
        _not_one_of(row, "answer", tuple(range(len(LETTERS)))),
        empty_option(),
    )


def _include_lite_fault(row: Row) -> Fault | None:
    return _include_fault(row, row["choices"], "column 'choices'")


def _include_base_fault(row: Row) -> Fault | None:
    return _include_fault(row, [row[column] for column in OPTION_COLUMNS], "columns option_a to option_d")


def _flores_fault(row: Row) -> Fault | None:
    return _first(_blank(row, ("sentence",)))


def _flores_places(_path: str, config: str) -> tuple[Place, ...]:
    """The Hub's FLORES+ and the FLORES-200 that many have on disk; their codes differ."""
    code = canonical_language(config)
    return (Place(FLORES_PLUS, flores_plus_code(code)), Place(FLORES_200, code))


_UNKNOWN = Source()
_FLORES = Source(
    columns=("sentence",),
    renamed={"text": "sentence"},
    rows={"dev": 997, DEVTEST: 1012},
    fault_of=_flores_fault,
    places=_flores_places,
    is_gated=True,
)
_SOURCES = {
    "cambridgeltl/xcopa": Source(
        columns=("premise", "choice1", "choice2", "question", "label"),
        rows={"validation": 100, "test": 500},
        fault_of=_xcopa_fault,
    ),
    "Muennighoff/xwinograd": Source(
        columns=("sentence", "option1", "option2", "answer"),
        rows={"test": {"en": 2325, "fr": 83, "jp": 959, "pt": 263, "ru": 315, "zh": 504}},
        fault_of=_xwinograd_fault,
        json_files="{split}/{config}.jsonl",
    ),
    "CohereLabs/include-lite-44": Source(
        columns=("question", "choices", "answer", "domain"), fault_of=_include_lite_fault
    ),
    "CohereLabs/include-base-44": Source(
        columns=("question", *OPTION_COLUMNS, "answer", "domain"), fault_of=_include_base_fault
    ),
    FLORES_PLUS: _FLORES,
    FLORES_200: _FLORES,
    "inayarhmns/MLAMA-dod-185": Source(columns=("template",)),
}

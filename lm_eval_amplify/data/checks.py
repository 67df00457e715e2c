"""Whether rows are what the dataset is known to hold."""

from __future__ import annotations

import datasets

from lm_eval_amplify.data.sources import Fault, Source
from lm_eval_amplify.errors import DataError, did_you_mean


def checked(
    rows: datasets.Dataset, source: Source, *, config: str, split: str, place: str
) -> tuple[datasets.Dataset, list[str]]:
    """Return the rows under the names that documents have, and what is worth a warning.

    Args:
        rows: As read.
        source: What is known of their dataset.
        config: The dataset's config.
        split: Its split.
        place: Where the rows come from, for errors.

    Raises:
        DataError: A column is missing, or a row cannot be scored.
    """
    own = {
        theirs: ours
        for theirs, ours in source.renamed.items()
        if theirs in rows.column_names and ours not in rows.column_names
    }
    rows = rows.rename_columns(own)
    missing = [column for column in source.columns if column not in rows.column_names]
    if missing:
        raise DataError(
            f"{place}: no column {missing[0]!r}{did_you_mean(missing[0], rows.column_names)}; it has "
            f"{', '.join(rows.column_names)}, expected {', '.join(source.columns)}"
        )
    warnings = []
    known = source.known_rows(config, split)
    if known is not None and len(rows) != known:
        warnings.append(f"{len(rows)} rows, while {split} of this dataset is known to have {known}")
    faults = list(_faults(rows, source))
    for number, fault in faults:
        if fault.is_fatal:
            raise DataError(f"{place}, row {number}: {fault.what}")
    if faults:
        number, fault = faults[0]
        more = f", and {len(faults) - 1} more such rows" if len(faults) > 1 else ""
        warnings.append(f"row {number}: {fault.what}{more}; scored as it is")
    return rows, warnings


def _faults(rows: datasets.Dataset, source: Source) -> list[tuple[int, Fault]]:
    needed = rows.select_columns(list(source.columns)) if source.columns else []
    numbered = ((number, source.fault_of(row)) for number, row in enumerate(needed, start=1))
    return [(number, fault) for number, fault in numbered if fault is not None]

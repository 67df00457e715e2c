"""Loading the splits of a dataset, from the mirror in force or the Hub."""

from __future__ import annotations

import logging

import datasets

from lm_eval_amplify.data.checks import checked
from lm_eval_amplify.data.files import read_rows
from lm_eval_amplify.data.hub import read_hub
from lm_eval_amplify.data.mirror import find_split, mirror_folder
from lm_eval_amplify.data.sources import source_of

_logger = logging.getLogger("lm_eval.amplify_data")  # below the harness's logger, whose level and format it shares


def load_splits(
    hub_path: str, hub_name: str, splits: list[str], data_dir: str | None = None
) -> dict[str, datasets.Dataset]:
    """Load the splits of a dataset, from the mirror in force or the Hub, and check them.

    A number of rows other than the known one is a warning.

    Args:
        hub_path: Dataset on the Hub, ``cambridgeltl/xcopa``.
        hub_name: Its config, ``id``.
        splits: The splits wanted.
        data_dir: A local mirror, ``DIR/<org>/<name>/<config>/<split>.jsonl`` (or ``.jsonl.gz``, ``.parquet``); by
            default the environment variable ``LM_EVAL_AMPLIFY_DATA_DIR``, else the Hub.

    Raises:
        DataError: The dataset cannot be loaded, lacks a column, or has a row that cannot be scored; names what
            was looked for and how to get it.
    """
    source = source_of(hub_path)
    mirror = mirror_folder(data_dir)
    if mirror is None:
        places = {split: f"{hub_path} ({hub_name}), split {split}" for split in splits}
        found = read_hub(hub_path, hub_name, splits, source)
    else:
        paths = {split: find_split(mirror, hub_path, hub_name, split) for split in splits}
        places = {split: str(path) for split, path in paths.items()}
        found = {split: read_rows(path) for split, path in paths.items()}
    good = {}
    for split, rows in found.items():
        good[split], warnings = checked(rows, source, config=hub_name, split=split, place=places[split])
        for warning in warnings:
            _logger.warning("%s: %s", places[split], warning)
    return good

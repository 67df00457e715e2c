"""The options behind a corpus's address: ``hub:org/name?text=content&split=train``."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from lm_eval_amplify.errors import DataError, did_you_mean


def options_of(kind: str, place: str, defaults: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Split an address at its ``?``.

    Args:
        kind: What stands before, ``hub:``, for the message.
        place: The rest of the address.
        defaults: The options that there are, and their values where they are not given.

    Returns:
        What stands before the ``?``, and the options' values.

    Raises:
        DataError: An option has another name, or no value.
    """
    where, _, query = place.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in given.items():
        if name not in defaults:
            raise DataError(
                f"corpus {kind}{place}: no option {name!r}{did_you_mean(name, defaults)}; there are "
                f"{', '.join(defaults)}"
            )
        if not value:
            raise DataError(f"corpus {kind}{place}: option {name!r} has no value: expected ?{name}=...")
    if query and not given:
        raise DataError(f"corpus {kind}{place}: expected ?{next(iter(defaults))}=... behind the question mark")
    return where, {**defaults, **given}

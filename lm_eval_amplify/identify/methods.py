"""The methods by name. A further one is a file with a class of :class:`Method`'s form, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lm_eval_amplify.errors import IdentificationError, did_you_mean
from lm_eval_amplify.identify.active import Activated
from lm_eval_amplify.identify.lape import Lape
from lm_eval_amplify.identify.method import Method
from lm_eval_amplify.identify.random_choice import RandomChoice

METHODS: Mapping[str, type[Lape] | type[Activated] | type[RandomChoice]] = {
    kind.name: kind for kind in (Lape, Activated, RandomChoice)
}


def make_method(name: str, parameters: Mapping[str, Any]) -> Method:
    """Return a method.

    Args:
        name: ``lape``, ``activation`` or ``random``.
        parameters: Its parameters; those that are None are left at their defaults.

    Raises:
        IdentificationError: There is no such method, or it has no such parameter, or that is out of range.
    """
    if name not in METHODS:
        raise IdentificationError(f"method={name}{did_you_mean(name, METHODS)}: there are {', '.join(METHODS)}")
    given = {parameter: value for parameter, value in parameters.items() if value is not None}
    known = [field.name for field in fields(METHODS[name])]
    for parameter in given:
        if parameter not in known:
            raise IdentificationError(f"method {name} has no parameter {parameter}: it has {', '.join(known)}")
    return METHODS[name](**given)

"""Names for the interventions of the paper: Rahmanisa et al. 2025 (arXiv 2507.22581); docs/presets.md has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_eval_amplify.errors import InterventionError, did_you_mean
from lm_eval_amplify.intervention import Intervention, Operation


class Preset(NamedTuple):
    """What a name stands for."""

    operation: Operation
    statistic: str
    factor: float


PRESETS: Mapping[str, Preset] = {
    "paper_p_max": Preset("set", "sentence_max", 1.0),
    "paper_p_median": Preset("set", "sentence_median", 1.0),
    "paper_10p": Preset("set", "batch_p10", 1.0),
    "paper_max": Preset("set", "running_max", 1.0),
    "paper_plus_max": Preset("add", "running_max", 1.0),
    "paper_zero": Preset("set", "one", 0.0),
}


def make_intervention(
    *,
    preset: str | None = None,
    operation: Operation | None = None,
    statistic: str | None = None,
    factor: float | None = None,
    **further: Any,
) -> Intervention:
    """Return an intervention by a preset's name, or by its parts, each with its default.

    >>> make_intervention(preset="paper_plus_max", layers="0-5").signature_parts["statistic"]
    'running_max'

    Args:
        preset: One of :data:`PRESETS`, which says operation, statistic and factor.
        operation: Without a preset, as the other two.
        statistic: See :class:`~lm_eval_amplify.intervention.Intervention`.
        factor: See there.
        **further: Its other attributes.

    Raises:
        InterventionError: There is no such preset, or it contradicts the others; or what the intervention raises.
    """
    parts = {"operation": operation, "statistic": statistic, "factor": factor}
    given: dict[str, Any] = {name: value for name, value in parts.items() if value is not None}
    if preset is not None:
        if preset not in PRESETS:
            raise InterventionError(
                f"preset={preset}{did_you_mean(str(preset), PRESETS)}: expected {', '.join(PRESETS)}"
            )
        meant = PRESETS[preset]
        if given:
            raise InterventionError(
                f"preset={preset} is operation={meant.operation},statistic={meant.statistic},factor={meant.factor:g}: "
                f"leave {', '.join(given)} out, or give these instead of the preset"
            )
        given = meant._asdict()
    return Intervention(**given, **further)

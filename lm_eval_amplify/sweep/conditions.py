"""A condition: what is done to the model while a task runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.task_languages import OWN_LANGUAGE


@dataclass(frozen=True)
class Condition:
    """An intervention on the neurons of some language, or none.

    Attributes:
        intervention: What is done; None: the model runs unamplified.
        language: Whose neurons: a FLORES-200 code, or ``task``: each request in the language of its own task.
        seed: Of random neurons in place of the languages'; None: the languages' own.
        preset: The name that the intervention was asked for by, if any.
    """

    intervention: Intervention | None = None
    language: str = OWN_LANGUAGE
    seed: int | None = None
    preset: str | None = None

    @property
    def is_amplified(self) -> bool:
        """Whether anything is done."""
        return self.intervention is not None

    @property
    def is_random(self) -> bool:
        """Whether it is a control."""
        return self.seed is not None

    def of_language(self, language: str) -> Condition:
        """Return the same on the neurons of one language."""
        return replace(self, language=language)

    def with_random_neurons(self, seed: int) -> Condition:
        """Return the same on random neurons."""
        return replace(self, seed=seed)

    @property
    def treatment(self) -> Condition:
        """The same without its language and seed: equal for a condition, its controls and its other languages."""
        return Condition(self.intervention, preset=self.preset)

    @property
    def label(self) -> str:
        """The treatment for a reader, as ``set max x 1`` or ``scale x 5, layers 0-5``.

        >>> Condition(Intervention("add", 0.5, "max", layers="0-5")).label
        'add max x 0.5, layers 0-5'
        """
        one = self.intervention
        if one is None:
            return "unamplified"
        if self.preset is not None:
            shown = self.preset
        else:
            statistic = "" if one.operation == "scale" else f" {one.statistic}"
            shown = f"{one.operation}{statistic} x {one.factor:g}"
        parts = [shown]
        if one.others_operation is not None:
            parts.append(f"others {one.others_operation} x {one.others_factor:g}")
        if one.layers != "all":
            parts.append(f"layers {one.layers}" if "-" in one.layers or "+" in one.layers else f"layer {one.layers}")
        if one.positions != "all":
            parts.append(f"{one.positions} positions")
        return ", ".join(parts)

    @property
    def slug(self) -> str:
        """A name for a folder; different for different conditions.

        >>> Condition(Intervention("scale", 2), "ind_Latn", seed=0).slug
        'scale-2.0.ind_Latn.random-0'
        """
        one = self.intervention
        if one is None:
            return "unamplified"
        parts = [one.operation, *([] if one.operation == "scale" else [one.statistic]), f"{one.factor!r}"]
        if one.others_operation is not None:
            parts += ["others", one.others_operation, *([one.statistic] if one.operation == "scale" else [])]
            parts.append(f"{one.others_factor!r}")
        if one.layers != "all":
            parts += ["layers", one.layers]
        if one.positions != "all":
            parts.append(one.positions)
        named = ["-".join(parts)]
        if self.language != OWN_LANGUAGE:
            named.append(self.language)
        if self.seed is not None:
            named.append(f"random-{self.seed}")
        return ".".join(named)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        intervention = None if self.intervention is None else asdict(self.intervention)
        return {
            "intervention": intervention,
            "language": self.language,
            "seed": self.seed,
            "preset": self.preset,
            "label": self.label,
        }

    @classmethod
    def of_dict(cls, found: Mapping[str, Any]) -> Condition:
        """Return what :meth:`as_dict` made."""
        intervention = found["intervention"]
        return cls(
            None if intervention is None else Intervention(**intervention),
            found["language"],
            found["seed"],
            found["preset"],
        )

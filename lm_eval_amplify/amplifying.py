"""Amplification in one line of Python, without the harness."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from lm_eval_amplify.amplifier import Amplifier, Mode
from lm_eval_amplify.intervention import Operation, Positions
from lm_eval_amplify.neurons import NeuronFile, locate_neurons, read_neurons
from lm_eval_amplify.presets import make_intervention


@contextmanager
def amplify(
    model: nn.Module,
    neurons: str | os.PathLike[str] | NeuronFile,
    *,
    language: str | Sequence[str],
    factor: float | None = None,
    operation: Operation | None = None,
    statistic: str | None = None,
    preset: str | None = None,
    others_operation: Operation | None = None,
    others_factor: float | None = None,
    layers: str = "all",
    positions: Positions = "all",
    mode: Mode = "auto",
) -> Iterator[Amplifier]:
    """Amplify the neurons of a language in a model inside the ``with`` block.

    >>> with amplify(model, "babel", language="ind_Latn", factor=0.5):  # doctest: +SKIP
    ...     model.generate(**inputs)

    Args:
        model: A Hugging Face model, on whatever devices.
        neurons: Path of a neuron file, ``hf://org/repo/file[@revision]``, the name of a bundled one, or its content.
        language: A FLORES-200 code, ISO code or English name; several as a list, or joined with ``+``.
        factor: See :class:`~lm_eval_amplify.intervention.Intervention`, as for what follows; by default 1.
        operation: By default ``set``.
        statistic: By default ``max``.
        preset: A name for operation, statistic and factor instead; see :mod:`~lm_eval_amplify.presets`.
        others_operation: On the neurons of the file's other languages; by default they are left alone.
        others_factor: Its factor.
        layers: By default all.
        positions: By default all; others, and test-time statistics, ask for
            :meth:`~lm_eval_amplify.amplifier.Amplifier.generating` or :meth:`~lm_eval_amplify.amplifier.Amplifier.on`.
        mode: See :class:`~lm_eval_amplify.amplifier.Amplifier`.

    Yields:
        The amplifier.

    Raises:
        AmplifyError: The file, the language, the model or an argument does not do; nothing is changed then.
    """
    content = neurons if isinstance(neurons, NeuronFile) else read_neurons(locate_neurons(neurons))
    intervention = make_intervention(
        preset=preset,
        operation=operation,
        statistic=statistic,
        factor=factor,
        others_operation=others_operation,
        others_factor=others_factor,
        layers=layers,
        positions=positions,
    )
    amplifier = Amplifier(model, content, intervention, mode=mode)
    with amplifier.amplified(*(language.split("+") if isinstance(language, str) else language)):
        yield amplifier

"""A second, slow implementation of interventions at positions: one sequence at a time, no batch, no padding, no cache.

Shares no code with the package: positions, statistics and edits are worked out here, with NumPy.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

STATISTICS = {
    "batch_p10": lambda prompt: np.quantile(prompt, 0.1),
    "batch_median": lambda prompt: np.quantile(prompt, 0.5),
    "batch_p90": lambda prompt: np.quantile(prompt, 0.9),
    "batch_mean": np.mean,
    "batch_max": np.max,
}


def activations(model: torch.nn.Module) -> list[torch.nn.Module]:
    if hasattr(model, "transformer"):
        return [block.mlp.act for block in model.transformer.h]
    return [block.mlp.act_fn for block in model.model.layers]


class ByHand:
    """A model whose neurons of a language are changed where an intervention says."""

    def __init__(self, model, content, intervention, language: str = "ind_Latn") -> None:
        self.model, self.content, self.intervention, self.language = model, content, intervention, language

    def logits(self, tokens: list[int], prompt: int) -> torch.Tensor:
        """``[pos, vocabulary]`` of a sequence of which the first tokens, so many, are the prompt."""
        with torch.no_grad(), self._changed(prompt):
            return self.model(torch.tensor([tokens])).logits[0]

    def loglikelihood(self, context: list[int], continuation: list[int]) -> float:
        tokens = (context + continuation)[:-1]
        logs = self.logits(tokens, len(context)).log_softmax(-1)
        return sum(logs[len(context) - 1 + n, token].item() for n, token in enumerate(continuation))

    def greedy(self, context: list[int], number: int, end: int | None = None) -> list[int]:
        written = list(context)
        while len(written) < len(context) + number and (len(written) == len(context) or written[-1] != end):
            written.append(self.logits(written, len(context))[-1].argmax().item())
        return written[len(context) :]

    @contextmanager
    def _changed(self, prompt: int):
        handles = []
        for layer, module in enumerate(activations(self.model)):

            def change(_module, _inputs, output, layer=layer):
                return torch.from_numpy(self._edit(output.numpy()[0], layer, prompt))[None]

            handles.append(module.register_forward_hook(change))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _edit(self, before: np.ndarray, layer: int, prompt: int) -> np.ndarray:
        one, after, done = self.intervention, before.copy(), set()
        at = {"all": slice(None), "prompt": slice(0, prompt - 1), "generated": slice(prompt - 1, None)}[one.positions]
        sides = [([self.language], one.operation, one.factor)]
        if one.others_operation:
            sides.append((self.content.languages, one.others_operation, one.others_factor))
        for languages, operation, factor in sides:
            for language in languages:
                own = self.content.neurons[language]
                for place in np.flatnonzero(own.layer == layer):
                    index = int(own.index[place])
                    if index in done:
                        continue
                    done.add(index)
                    value = factor * self._statistic(own, place, before, prompt)
                    changed = {"set": value + 0 * before[:, index], "add": before[:, index] + value}
                    changed["scale"] = factor * before[:, index]
                    after[at, index] = changed[operation][at]
        return after

    def _statistic(self, own, place: int, before: np.ndarray, prompt: int):
        """A number, or one for each position."""
        name = self.intervention.statistic
        if name in STATISTICS:
            return STATISTICS[name](before[:prompt])
        if name == "running_max":
            return np.array([before[: position + 1].max() for position in range(len(before))])
        return 1.0 if name == "one" else own.statistics[name][place]

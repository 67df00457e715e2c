"""A second, slow implementation of the Language Steering Shift: one forward per option, hooks of its own.

Shares no code with the package: templates are filled, texts tokenised and neurons set here.
"""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import torch

CODES = {
    "en": "eng_Latn", "nl": "nld_Latn", "id": "ind_Latn", "ms": "zsm_Latn", "vi": "vie_Latn",
    "ja": "jpn_Jpan", "zh": "zho_Hans", "fr": "fra_Latn", "pt": "por_Latn", "ru": "rus_Cyrl",
    "et": "est_Latn", "it": "ita_Latn", "ta": "tam_Taml", "th": "tha_Thai", "tr": "tur_Latn",
}  # fmt: skip
SHORT = {code: short for short, code in CODES.items()}
HUB_PATH = "inayarhmns/MLAMA-dod-185"


def read_rows(mirror: Path, short: str) -> list[dict]:
    text = (mirror / HUB_PATH / short / "test.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def write_mirror(folder: Path, rows: dict[str, list[dict]]) -> Path:
    """A mirror of the given rows by the base language's short code."""
    for short, facts in rows.items():
        path = folder / HUB_PATH / short / "test.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts), encoding="utf-8")
    return folder


def cloze(row: dict, base: str) -> tuple[str, str]:
    """Prompt and joint: the template up to ``[Y]``; a space, but none in Chinese, Japanese and Thai."""
    end = row["template"].index("[Y]")
    prompt = row["template"][:end].replace("[X]", row[f"sub_{base}"])
    return prompt.strip(), "" if base in ("zh", "ja", "th") else " "


def paper(row: dict, base: str) -> tuple[str, str]:
    """Prompt and joint of the paper's code."""
    return row["template"].replace("[X]", row[f"sub_{base}"]).replace(" [Y]", ""), " "


def activations(model: torch.nn.Module) -> list[torch.nn.Module]:
    if hasattr(model, "transformer"):
        return [block.mlp.act for block in model.transformer.h]
    return [block.mlp.act_fn for block in model.model.layers]


class ByHand:
    """Scores with neurons set to factor times their maximum, as the test's runs do."""

    def __init__(self, model, tokenizer, neurons, factor: float) -> None:
        self.model, self.tokenizer, self.neurons, self.factor = model, tokenizer, neurons, factor

    def loglikelihood(self, prompt: str, continuation: str, target: str | None) -> float:
        whole = self.tokenizer(prompt + continuation)["input_ids"]
        start = len(self.tokenizer(prompt)["input_ids"])
        assert start < len(whole) <= self.model.config.max_position_embeddings
        hooks = self._amplify(target) if target else []
        with torch.no_grad():
            logits = self.model(torch.tensor([whole])).logits[0]
        for hook in hooks:
            hook.remove()
        logs = torch.log_softmax(logits.float(), dim=-1)
        return sum(logs[place - 1, whole[place]].item() for place in range(start, len(whole)))

    def _amplify(self, target: str) -> list:
        own = self.neurons.neurons[target]
        hooks = []
        for layer, module in enumerate(activations(self.model)):
            here = own.layer == layer
            index = torch.tensor(own.index[here].tolist())
            value = torch.tensor((self.factor * own.statistics["max"][here]).tolist())

            def edit(_module, _inputs, output, index=index, value=value):
                output = output.clone()
                output[..., index] = value
                return output

            hooks.append(module.register_forward_hook(edit))
        return hooks

    def shift(self, row: dict, base: str, target: str, wording=cloze) -> float:
        """shift_t of one fact, NaN where it has none; languages by their short codes."""
        subject, own, other = row[f"sub_{base}"], row[f"obj_{base}"], row[f"obj_{target}"]
        if not (subject and own and other):
            return math.nan
        if wording is cloze and unicodedata.normalize("NFC", own) == unicodedata.normalize("NFC", other):
            return math.nan
        prompt, joint = wording(row, base)
        lp = {
            (side, name): self.loglikelihood(prompt, joint + name, side)
            for side in (None, CODES[target])
            for name in {own, other}
        }
        amplified = lp[CODES[target], other] - lp[CODES[target], own]
        return amplified - (lp[None, other] - lp[None, own])

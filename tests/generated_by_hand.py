"""A second, slow greedy decoder: one prompt at a time, a whole forward per token, no cache, hooks of its own."""

from __future__ import annotations

import torch
from lss_by_hand import ByHand


def greedy(by_hand: ByHand, prompt: str, target: str | None, tokens: int) -> str:
    """What the model writes, its neurons of the target set as in :class:`ByHand`; the end token ends it."""
    tokenizer = by_hand.tokenizer
    written = tokenizer(prompt)["input_ids"]
    start = len(written)
    hooks = by_hand._amplify(target) if target else []
    with torch.no_grad():
        while len(written) < start + tokens and written[-1] != tokenizer.eos_token_id:
            written.append(by_hand.model(torch.tensor([written])).logits[0, -1].argmax().item())
    for hook in hooks:
        hook.remove()
    return tokenizer.decode(written[start:], skip_special_tokens=True)

"""Requests to generate, and the harness's models that answer them: stock, and with a loop of our own."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import tiny
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from lm_eval_amplify.models.hf import AmplifiedHFLM

SENTENCES = [
    "Pria itu membuka keran, maka airnya mengalir.",
    "那个男人打开了水龙头, 所以水流了出来。",
    "Mees",
    "The quick brown fox jumps over the lazy dog 012345. Nonm nan louvri wobinè a, donk sa dlo a koule, e li fèmen l.",
    "அந்த மனிதன் குழாயைத் திறந்தான்",
    "x",
    "Mwanamume alifungua bomba, kwa hiyo maji yalitiririka.",
]
ENDS = (["\n"], [" ", "a"], [], ["e", "\n\n", "ல்"])


def request(prompt: str, **options) -> Instance:
    return Instance("generate_until", {"amplify_language": "ind_Latn"}, (prompt, options), 0, ("t", 0, 1))


def mixed(tokens: int = 20) -> list[Instance]:
    """Each sentence with each way to end, in an order that is not that of lengths."""
    return [request(one, until=list(until), max_gen_toks=tokens) for until in ENDS for one in SENTENCES]


def answers(lm: HFLM, requests: list[Instance]) -> list[str]:
    return lm.generate_until(requests, disable_tqdm=True)


def own(model, batch_size: int = 5, **arguments) -> AmplifiedHFLM:
    given = {"tokenizer": tiny.tokenizer(), "scorer": "stock"} | arguments
    lm = AmplifiedHFLM(model, **given, batch_size=batch_size)
    lm.use_own_generation()
    return lm


def stock(model, batch_size: int = 1, **arguments) -> HFLM:
    return HFLM(model, **{"tokenizer": tiny.tokenizer()} | arguments, batch_size=batch_size)


def rows_of_passes(model) -> list[int]:
    """The number of rows of every forward pass from now on."""
    rows: list[int] = []
    model.register_forward_pre_hook(
        lambda _module, _arguments, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    return rows


def why_not(records: Iterable[logging.LogRecord]) -> list[str]:
    """The lines that say why something ran in transformers' loop."""
    marker = "generation runs in transformers' own loop, not in ours: "
    return [
        record.getMessage().removeprefix(marker)
        for record in records
        if record.levelno == logging.INFO and record.getMessage().startswith(marker)
    ]

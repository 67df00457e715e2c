"""A small mirror in XCOPA's form, and inline tasks of every request type."""

from __future__ import annotations

import json
from pathlib import Path

import datasets

XCOPA_CONFIGS = {
    "et": "est_Latn", "ht": "hat_Latn", "id": "ind_Latn", "it": "ita_Latn", "qu": "quy_Latn", "sw": "swh_Latn",
    "ta": "tam_Taml", "th": "tha_Thai", "tr": "tur_Latn", "vi": "vie_Latn", "zh": "zho_Hans",
}  # fmt: skip
_ROWS = {
    "id": [
        ("Hujan turun semalaman.", "Sungai meluap.", "Matahari bersinar.", "effect", 0),
        ("Anak itu menangis.", "Ia mendapat hadiah.", "Mainannya rusak.", "cause", 1),
        ("Toko itu tutup.", "Pemiliknya sakit.", "Banyak orang datang.", "cause", 0),
        ("Saya lupa membawa payung.", "Baju saya basah.", "Baju saya baru.", "effect", 0),
        ("Lampu padam.", "Kami menyalakan lilin.", "Kami membuka jendela.", "effect", 0),
    ],
    "zh": [
        ("昨晚下了一整夜的雨。", "河水涨了。", "太阳出来了。", "effect", 0),
        ("孩子哭了。", "他得到了礼物。", "他的玩具坏了。", "cause", 1),
        ("商店关门了。", "老板病了。", "来了很多人。", "cause", 0),
        ("我忘了带伞。", "我的衣服湿了。", "我的衣服很新。", "effect", 0),
        ("停电了。", "我们点了蜡烛。", "我们打开了窗户。", "effect", 0),
    ],
    "et": [
        ("Öösel sadas vihma.", "Jõgi tõusis.", "Päike paistis.", "effect", 0),
        ("Laps nuttis.", "Ta sai kingituse.", "Tema mänguasi läks katki.", "cause", 1),
        ("Pood oli suletud.", "Omanik oli haige.", "Palju rahvast tuli.", "cause", 0),
        ("Unustasin vihmavarju.", "Mu riided said märjaks.", "Mu riided olid uued.", "effect", 0),
        ("Elekter katkes.", "Süütasime küünlad.", "Avasime akna.", "effect", 0),
    ],
}


def write_mirror(folder: Path) -> Path:
    """Rows for all eleven configs; languages without rows of their own have the Indonesian ones."""
    for config in XCOPA_CONFIGS:
        target = folder / "cambridgeltl" / "xcopa" / config
        target.mkdir(parents=True)
        rows = [
            dict(
                zip(
                    ("premise", "choice1", "choice2", "question", "label", "idx", "changed"),
                    (*row, i, False),
                    strict=True,
                )
            )
            for i, row in enumerate(_ROWS.get(config, _ROWS["id"]))
        ]
        for split in ("validation", "test"):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (target / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _documents(**_metadata):
    rows = [
        {"text": row[0], "other": row[1], "amplify_language": XCOPA_CONFIGS[config]}
        for config in ("zh", "id", "et")
        for row in _ROWS[config]
    ]
    order = [7, 0, 12, 3, 9, 1, 14, 5, 2, 11, 4, 8, 13, 6, 10]  # languages in turn, lengths mixed
    return {"test": datasets.Dataset.from_list([rows[i] for i in order])}


def inline_task(output_type: str, name: str | None = None, **changes):
    """A task of fifteen documents in three languages, mixed."""
    metric = {
        "loglikelihood": "perplexity",
        "loglikelihood_rolling": "bits_per_byte",
        "generate_until": "exact_match",
    }[output_type]
    return {
        "task": name or f"toy_{output_type}",
        "custom_dataset": _documents,
        "output_type": output_type,
        "test_split": "test",
        "doc_to_text": "" if output_type == "loglikelihood_rolling" else "{{text}}",
        "doc_to_target": "{{text}}" if output_type == "loglikelihood_rolling" else "{{other}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 7, "do_sample": False},
        "metric_list": [{"metric": metric}],
        "metadata": {"version": 1},
    } | changes

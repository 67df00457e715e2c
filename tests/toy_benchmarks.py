"""A small mirror of Include, XWinograd and FLORES in the columns of the Hub, written for the tests."""

from __future__ import annotations

import json
from pathlib import Path

XWINOGRAD_CONFIGS = {
    "en": "eng_Latn", "fr": "fra_Latn", "jp": "jpn_Jpan", "pt": "por_Latn", "ru": "rus_Cyrl", "zh": "zho_Hans",
}  # fmt: skip
_XWINOGRAD = {
    "en": [
        ("The cup does not fit on the shelf because _ is too tall.", "the cup", "the shelf", "1"),
        ("Anna thanked Eva for the help that _ had been given.", "Anna", "Eva", "1"),
        ("Of the dog and the cat the louder one is _", "the dog", "the cat", "1"),
        ("The same twice: _ is late.", "the bus", "the bus", "2"),
    ],
    "ru": [
        ("Кот не влез в коробку, потому что _ слишком велик.", "кот", "коробка", "1"),
        ("Ваза упала на стол и разбилась: новой была _", "ваза", "стол", "1"),
    ],
    "jp": [("箱に本が入らない。_が大きすぎる。", "本", "箱", "1"), ("父は息子より_。", "背が高い", "若い", "1")],
}

INCLUDE_CONFIGS = {
    "Indonesian": "ind_Latn",
    "Italian": "ita_Latn",
    "Hebrew": "heb_Hebr",
    "North Macedonian": "mkd_Cyrl",
}
_INCLUDE = [
    ("STEM", "Berapakah dua tambah dua? ", ("tiga", "empat", "lima", "enam"), 1),
    ("Arts & Humanities", "Siapa penulis buku itu?", ("Ani", "Budi", "Citra", "Dedi"), 0),
    ("Driving License", "Warna apa yang berarti berhenti?", ("hijau", "kuning", "merah", "biru"), 2),
    ("STEM", "Planet mana yang terbesar?", ("Mars", "Venus", "Bumi", "Yupiter"), 3),
    ("Arts & Humanities", "Sama semua?", ("ya", "ya", "ya", "tidak"), 3),
]

FLORES_CODES = ("ind_Latn", "rus_Cyrl", "tam_Taml", "zho_Hans", "jav_Latn")
FLORES = {
    "ind_Latn": ["Kereta pertama berangkat pagi sekali.", "Harga beras naik lagi minggu ini.", "Laut tenang."],
    "rus_Cyrl": ["Поезд уходит рано утром.", "Цены на рис снова выросли.", "Буря стихла."],
    "tam_Taml": ["ரயில் காலையில் புறப்படும்.", "அரிசி விலை உயர்ந்தது.", "கடல் அமைதி."],
    "zho_Hans": ["第一班火车很早出发。", "这周米价又涨了。", "海面平静。"],
    "jav_Latn": ["Sepur kapisan mangkat esuk.", "Rega beras munggah maneh.", "Segara anteng."],
}


def xwinograd_rows(config: str) -> list[dict]:
    columns = ("sentence", "option1", "option2", "answer")
    return [dict(zip(columns, row, strict=True)) for row in _XWINOGRAD.get(config, _XWINOGRAD["en"])]


def include_rows(layout: str) -> list[dict]:
    """Rows of include-``lite``-44 or include-``base``-44."""
    rows = []
    for domain, question, options, answer in _INCLUDE:
        row = {"language": "Indonesian", "country": "Indonesia", "domain": domain, "subject": "-", "level": "Academic",
               "regional_feature": "agnostic", "question": question, "answer": answer}  # fmt: skip
        own = {f"option_{letter}": text for letter, text in zip("abcd", options, strict=True)}
        rows.append(row | ({"choices": list(options)} if layout == "lite" else own))
    return rows


def flores_rows(code: str) -> list[dict]:
    return [{"id": number, "sentence": sentence} for number, sentence in enumerate(FLORES[code], start=1)]


def write_split(folder: Path, rows: list[dict], split: str = "test") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_mirror(folder: Path) -> Path:
    for config in XWINOGRAD_CONFIGS:
        write_split(folder / "Muennighoff/xwinograd" / config, xwinograd_rows(config))
    for layout in ("lite", "base"):
        for config in INCLUDE_CONFIGS:
            write_split(folder / f"CohereLabs/include-{layout}-44" / config, include_rows(layout))
    for code in FLORES_CODES:
        write_split(folder / "facebook/flores" / code, flores_rows(code), "devtest")
    return folder

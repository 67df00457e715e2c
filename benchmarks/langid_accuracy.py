"""How often the language identifiers are right on FLORES devtest: the table in tasks/lss_langid/README.md.

    python benchmarks/langid_accuracy.py MIRROR [LANGUAGE ...]

Percent of the sentences of each language, whole and of their first 80, 40 and 20 characters, that each identifier by
itself takes for that language, and that count as it in a task. A text that can be no language is wrong in all of them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from lm_eval_amplify.languages import PAPER_LANGUAGES
from lm_eval_amplify.tasks_support.flores import load_flores
from lm_eval_amplify.tasks_support.identifiers import OTHER, Judged, task_identifiers

LENGTHS = (None, 80, 40, 20)


def labels(judged: Judged) -> tuple[str, str, str]:
    """What the first identifier says, the second, and what the text counts as."""
    if judged.first is None or judged.second is None or judged.why_other not in (None, "uncertain"):
        return OTHER, OTHER, OTHER
    return judged.first.language, judged.second.language, judged.counts_as


def main(data_dir: str, languages: Sequence[str]) -> None:
    identifiers = task_identifiers()
    print("By", " and ".join(filter(None, identifiers.names.values())))
    lengths = " | ".join("all" if length is None else str(length) for length in LENGTHS)
    print(f"| language | {lengths} | {lengths} | {lengths} | agree | instead |\n" + "| --- " * 15 + "|")
    for language in languages:
        sentences = load_flores(language, data_dir=data_dir)["devtest"]["sentence"]
        cells: list[list[str]] = [[], [], []]
        for length in LENGTHS:
            judged = [identifiers.judge(sentence[:length]) for sentence in sentences]
            counts = [Counter(column) for column in zip(*map(labels, judged), strict=True)]
            if length is None:
                agree = f"{100 * sum(one.agree is True for one in judged) / len(judged):.1f}"
                wrong = [f"{other} {count}" for other, count in counts[0].most_common(4) if other != language]
            for column, count in zip(cells, counts, strict=True):
                column.append(f"{100 * count[language] / len(sentences):.1f}")
        print(
            "|", " | ".join([language, *cells[0], *cells[1], *cells[2], agree, ", ".join(wrong[:3])]), "|", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or PAPER_LANGUAGES)

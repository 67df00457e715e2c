"""Which language a model writes in when another one is amplified, as a matrix: base language by target language.

    lm_eval --model amplified_hf --model_args pretrained=MODEL,neurons=FILE --tasks amplify_lss_langid --output_path OUT
    python benchmarks/langid_matrix.py OUT [ANOTHER ...]

Each argument is a results file of the harness, or a folder that holds some, of which the latest is read. A cell is the
share of texts in the target language, in percent, amplified; in brackets by how many points that is more than
unamplified. Give the run with random neurons as a second argument.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

GROUPS = ("amplify_lss_langid_flores_", "amplify_lss_langid_")


def read(path: Path) -> dict[str, Any]:
    files = [path] if path.is_file() else sorted(path.rglob("results_*.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        sys.exit(f"no results of lm_eval in {path}")
    return json.loads(files[-1].read_text(encoding="utf-8"))


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics by base language, those of the FLORES variant with ``flores`` before it."""
    rows = {}
    for task, values in results["results"].items():
        group = next((group for group in GROUPS if task.startswith(group)), None)
        if group is not None:
            base = task.removeprefix(group)
            metrics = {
                name.partition(",")[0]: value for name, value in values.items() if isinstance(value, float | int)
            }
            rows[base if group == GROUPS[1] else f"flores {base}"] = metrics
    return rows


def matrix(rows: dict[str, dict[str, float]]) -> str:
    prefix = "lss_langid_"
    targets = sorted({name.removeprefix(prefix) for row in rows.values() for name in row if name.startswith(prefix)})
    targets = [target for target in targets if "stderr" not in target]
    lines = ["| base \\ target | " + " | ".join(targets) + " | mean | unamplified | in no language |"]
    lines.append("| --- " * (len(targets) + 4) + "|")
    for base, row in rows.items():
        cells = [
            f"{100 * row[f'target_rate_{target}']:.0f} ({100 * row[prefix + target]:+.0f})"
            if prefix + target in row
            else ""
            for target in targets
        ]
        means = [row["target_rate"], row["target_rate_unamplified"], row["no_language_rate"]]
        lines.append(f"| {base} | " + " | ".join([*cells, *(f"{100 * mean:.0f}" for mean in means)]) + " |")
    return "\n".join(lines)


def main(paths: list[str]) -> None:
    for path in paths:
        results = read(Path(path))
        rows = rows_of(results)
        if not rows:
            sys.exit(f"{path}: no task of amplify_lss_langid among {', '.join(results['results'])}")
        means = [100 * sum(row[name] for row in rows.values()) / len(rows) for name in ("lss_langid", "target_rate")]
        print(f"{results['config'].get('amplify', {}).get('signature', path)}\n\n{matrix(rows)}\n")
        print(f"Over {len(rows)} base languages: {means[1]:.1f} % in the target language, {means[0]:+.1f} points\n")


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))

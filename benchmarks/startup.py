"""What the installed plugin costs at start: whole processes with it and without it, in turn.

    python benchmarks/startup.py

Without: the plugin's line in site-packages is taken out for the run, and put back.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "lm_eval --help": [sys.executable, "-m", "lm_eval", "--help"],
}
PAIRS = 31


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    return time.perf_counter() - start


def main() -> None:
    line = Path(sysconfig.get_paths()["purelib"]) / "lm_eval_amplify_autoload.pth"
    aside = line.with_suffix(".aside")
    for name, command in COMMANDS.items():
        seconds(command)
        differences, bases = [], []
        for _ in range(PAIRS):
            installed = seconds(command)
            line.rename(aside)
            try:
                bare = seconds(command)
            finally:
                aside.rename(line)
            differences.append(1000 * (installed - bare))
            bases.append(1000 * bare)
        print(
            f"{name}: {statistics.median(bases):.0f} ms without the plugin, "
            f"{statistics.median(differences):+.1f} ms with it (median of {PAIRS} pairs)"
        )


if __name__ == "__main__":
    main()

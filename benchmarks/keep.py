"""Keep the small files of searches and studies where the documentation shows them.

`.venv/bin/python benchmarks/keep.py TARGET FOLDER ...` copies those of each folder that are there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

KEPT = (
    "trials.csv",
    "chosen.yaml",
    "report.html",
    "table.csv",
    "table.md",
    "cells.csv",
    "consistency.csv",
    "temperatures.csv",
    "temperatures.png",
)


def keep(target: Path, folders: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)


if __name__ == "__main__":
    place, *rest = map(Path, sys.argv[1:])
    keep(place, rest)

"""Keep the small files of searches and studies where the documentation shows them.

`.venv/bin/python benchmarks/keep.py TARGET FOLDER ...` copies those of each folder that are there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

KEPT = (
    "trials.csv",
    "chosen.yaml",
    "report.html",
    "table.csv",
    "table.md",
    "cells.csv",
    "consistency.csv",
    "errors.csv",
    "scores.csv",
    "comparison.md",
    "temperatures.csv",
    "temperatures.png",
)


def keep(target: Path, folders: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        for name in KEPT:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", type=Path, help="where the files are shown")
    parser.add_argument("folders", type=Path, nargs="+", help="of searches and studies")
    words = parser.parse_args(argv)
    keep(words.target, words.folders)


if __name__ == "__main__":
    main()

"""Keep the small files of a search and a study where the documentation shows them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

KEPT = {
    "search": ("trials.csv", "chosen.yaml"),
    "study": ("report.html", "table.csv", "table.md", "cells.csv"),
}


def keep(search: Path, study: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for folder, names in ((search, KEPT["search"]), (study, KEPT["study"])):
        for name in names:
            shutil.copyfile(folder / name, target / name)


if __name__ == "__main__":
    keep(*map(Path, sys.argv[1:4]))

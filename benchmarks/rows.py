"""What every benchmark writes beside its numbers."""

from __future__ import annotations

import csv
import datetime
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from stillhouse.engine.environment import processor

Row = dict[str, str | float]


def write(path: Path, rows: Sequence[Row]) -> None:
    """The rows with seed, date, version and machine."""
    about: Row = {
        "seed": 0,
        "date": str(datetime.date.today()),
        "torch": torch.__version__,
        "machine": f"{processor()}, one thread, Python {platform.python_version()}",
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)

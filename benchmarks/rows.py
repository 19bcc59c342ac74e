"""What every timed benchmark shares: its options, and what it writes beside its numbers."""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from stillhouse.engine.environment import processor_name

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str | float]


class Options(NamedTuple):
    """How long a benchmark measures, and where its table goes."""

    rounds: int
    warmup: int  # rounds before those that count, while caches fill
    out: Path
    steps: int = 1  # of a measurement
    recipe: str = ""  # whose data and networks are measured


def options(
    argv: Sequence[str] | None,
    about: str | None,
    name: str,
    *,
    rounds: int,
    warmup: int,
    steps: int = 0,
    recipe: str = "",
) -> Options:
    """The command line: `--rounds`, `--warmup`, `--out`, and what else has a default."""
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    shown = "default %(default)s"
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measurements; {shown}")
    parser.add_argument("--warmup", type=int, default=warmup, help=f"rounds before; {shown}")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.csv", help="the table")
    if steps:
        parser.add_argument("--steps", type=int, default=steps, help=f"of a round; {shown}")
    if recipe:
        parser.add_argument("--recipe", default=recipe, help=f"what is trained; {shown}")
    words = parser.parse_args(argv)
    if words.rounds < 1 or words.warmup < 0:
        parser.error("--rounds must be at least 1, and --warmup at least 0")
    return Options(**vars(words))


def write(path: Path, rows: Sequence[Row]) -> None:
    """The rows with seed, date, version and machine."""
    about: Row = {
        "seed": 0,
        "date": str(datetime.date.today()),
        "torch": torch.__version__,
        "machine": f"{processor_name()}, one thread, Python {platform.python_version()}",
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0], *about], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **about} for row in rows)

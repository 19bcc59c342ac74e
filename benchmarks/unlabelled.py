"""What images without labels add: each method with them against the same method without, by seed.

`.venv/bin/python benchmarks/unlabelled.py runs/unlabelled` writes comparison.md there, from
cells.csv of `stillhouse study benchmarks/unlabelled.yaml`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from stillhouse.study.statistics import difference_interval

SCORE = "test/top1"
LABELLED, BOTH = "labelled", "unlabelled"  # the pairs of the study


def read_scores(folder: Path) -> dict[str, dict[str, dict[int, float]]]:
    """The test score of each seed, by pair and method."""
    found: dict[str, dict[str, dict[int, float]]] = {LABELLED: {}, BOTH: {}}
    with (folder / "cells.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            method, _, pair = row["method"].rpartition(" of ")
            found[pair].setdefault(method, {})[int(row["seed"])] = float(row[SCORE])
    return found


def write_page(scores: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    """A table with a row for each method."""
    lines = [
        "| method | labelled images alone | and images without labels | gain (95 % interval) |",
        "|---|---:|---:|---:|",
    ]
    for method, alone in scores[LABELLED].items():
        seeds = sorted(alone.keys() & scores[BOTH][method].keys())
        one, other = ([pair[seed] for seed in seeds] for pair in (alone, scores[BOTH][method]))
        gain = difference_interval(other, one)
        means = [f"{sum(values) / len(values):.1f}" for values in (one, other)]
        interval = f"{gain.mean:+.1f} ({gain.low:.1f} … {gain.high:.1f})"
        lines.append(f"| {method} | {means[0]} | {means[1]} | {interval} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the study")
    folder = parser.parse_args(argv).folder
    page = write_page(read_scores(folder))
    (folder / "comparison.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()

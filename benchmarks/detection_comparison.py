"""Which detection method first? The gains of all methods in the studies of docs/results/detection.

`.venv/bin/python benchmarks/detection_comparison.py` writes comparison.md there: the gain in AP
over the control on the test split, with a 95 % interval over paired seeds, and the mean share of
the best gain of a study.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from stillhouse.study.statistics import Interval, t_interval

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "detection"
SCORE = "test/ap"
CONTROL = "none"
LEVELS = ":pairs=levels"
PKD = f"pkd:adapter=pointwise{LEVELS}"
DENSE_DIST, DIST = "tld_dist:temperature=1", "dist:temperature=1:beta=1:gamma=1:sites=[roi]"
RELATIONS = f"channel_relation{LEVELS}+spatial_relation{LEVELS}"
FKD = "fkd:alpha=0.007:beta=0.4:temperature=0.5:variant=reference"
GID = "gid:weight=0.05:relation=400:classes=1:boxes=1"
MGD = f"mgd:alpha=0.0003:masked=0.65:mask=location{LEVELS}"

# Columns, and the folders of the studies behind each.
STUDIES: Mapping[str, tuple[str, ...]] = {
    "GFocal, scenes": (".", "features"),
    "Faster R-CNN, scenes": ("two_stage",),
    "GFocal, blood cells": ("cells",),
}
# Rows, and what the studies call them.
METHODS: Mapping[str, tuple[str, ...]] = {
    "KD, temperature 1": (
        "kd:temperature=1:label_weight=1",
        "kd:temperature=1:label_weight=1:sites=[roi]",
    ),
    "DIST": (DENSE_DIST, DIST),
    "DIST + mimic": (f"{DIST}+mimic{LEVELS}",),
    "DIST+": (
        f"{DENSE_DIST}+{RELATIONS}+acclimation:rate=0.1",
        f"{DIST}+{RELATIONS}+acclimation:rate=0.1:sites=[roi]",
    ),
    "TLD, temperature 1": ("tld:temperature=1:weight=2.5",),
    "TLD, temperature 0.5": ("tld:weight=2.5",),
    "BCKD": ("bckd",),
    "mimic": (f"mimic{LEVELS}",),
    "CWD": (f"cwd:temperature=1:weight=10{LEVELS}",),
    "PKD": (PKD,),
    "MGD": (MGD,),
    "FGFI": ("fgfi:weight=1",),
    "DeFeat": ("defeat",),
    "GID": (GID,),
    "MasKD": ("maskd:weight=1",),
    "FGD": ("fgd",),
    "FKD": (FKD,),
    "mimic + TLD": (f"mimic{LEVELS}+tld:weight=2.5",),
    "PKD + TLD": (f"{PKD}+tld:weight=2.5",),
    "MGD + TLD": (f"{MGD}+tld:weight=2.5",),
    "FGFI + TLD": ("fgfi:weight=1+tld:weight=2.5",),
    "DeFeat + TLD": ("defeat+tld:weight=2.5",),
    "GID + TLD": (f"{GID}+tld:weight=2.5",),
    "FGD + TLD": ("fgd+tld:weight=2.5",),
}


HEAD = """# Detection methods in all studies

Gains in AP over the control of the study, on the test split, with 95 % intervals over paired
seeds. The last columns are the gain over the largest one of a study, as a mean over the studies
that have the method, and their number. A method in a single study may be easy there.
[Dense](README.md), [features](features/README.md) and [two stages](two_stage/README.md) have
options, seeds and limits.

"""
Gains = dict[str, dict[str, Interval]]  # by method, then by study


def read_scores(path: Path) -> dict[str, dict[int, float]]:
    """The score of each method and seed in a cells.csv."""
    found: dict[str, dict[int, float]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["method"], {})[int(row["seed"])] = float(row[SCORE])
    return found


def find_gains(root: Path) -> Gains:
    """The gains of all methods over the control of their study."""
    gains: Gains = {}
    for study, folders in STUDIES.items():
        for folder in folders:
            scores = read_scores(root / folder / "cells.csv")
            control = scores[CONTROL]
            for name, labels in METHODS.items():
                for label in labels:
                    if label in scores and study not in gains.get(name, {}):
                        seeds = sorted(scores[label])
                        own, base = ([one[s] for s in seeds] for one in (scores[label], control))
                        gains.setdefault(name, {})[study] = t_interval(own, base)
    return gains


def shares(gains: Gains) -> dict[str, float]:
    """The gain of each method over the best gain of a study, the mean over its studies.

    Studies in which no method gains are left out.
    """
    best = {
        study: max((found[study].mean for found in gains.values() if study in found), default=0.0)
        for study in STUDIES
    }
    found: dict[str, float] = {}
    for name, of_studies in gains.items():
        parts = [gain.mean / best[study] for study, gain in of_studies.items() if best[study] > 0]
        found[name] = mean(parts) if parts else 0.0
    return found


def write_page(gains: Gains) -> str:
    """A heading, what the numbers are, and the table."""
    return f"{HEAD}{write_table(gains)}"


def write_table(gains: Gains) -> str:
    """A table in Markdown, the methods of most studies and of the largest shares first."""
    share = shares(gains)
    head = ("method", *STUDIES, "share of the best gain", "studies")
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for name in sorted(gains, key=lambda one: -share[one]):
        cells = [format_gain(gains[name].get(study)) for study in STUDIES]
        lines.append((name, *cells, f"{100 * share[name]:.0f} %", str(len(gains[name]))))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_gain(gain: Interval | None) -> str:
    """`+8.1 (6.8 … 9.5)`, or nothing."""
    return "" if gain is None else f"{gain.mean:+.1f} ({gain.low:.1f} … {gain.high:.1f})"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path, default=RESULTS, help="of the studies")
    root = parser.parse_args(argv).root
    (root / "comparison.md").write_text(write_page(find_gains(root)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every family of dense detectors at two sizes, trained on embedded scenes, over several seeds.

`.venv/bin/python benchmarks/detector_families.py` trains 30 detectors in two processes, in about
half an hour, and writes benchmarks/results/detector_families.csv: AP, AP50 and AP75 on the test
split, validation AP, parameters and processor time of each. What is finished in `--runs` is not
trained again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rows import Row, write
from stillhouse.recipes import load
from stillhouse.runs.execute import execute

RECIPE = "digits/objects"
SIZES = {
    "small": ("backbone=stillhouse/small", "neck.width=32", "head.width=32", "head.depth=1"),
    "large": ("backbone=stillhouse/large", "neck.width=64", "head.width=64", "head.depth=2"),
}
RATES = {"small": "4.0e-3", "large": "2.0e-3"}
# Digits are 11 to 20 pixels wide: the sizes of anchors, in strides of 4 and 8 pixels.
FAMILIES: dict[str, tuple[str, ...]] = {
    "retinanet": ("scale=2.5",),
    "fcos": (),
    "atss": ("scale=4",),
    "gfocal": ("scale=4",),
    "reppoints": ("scale=4",),
}


def overrides(family: str, size: str, seed: int) -> list[str]:
    """The recipe without a teacher, with this detector as student."""
    options = ("strides=[4, 8]", "neck.extra=0", *SIZES[size], *FAMILIES[family])
    return [
        "method=none",
        f"student.name=detector/{family}",
        "student.options=null",
        *(f"student.options.{option}" for option in options),
        f"train.optimiser.lr={RATES[size]}",
        f"seed={seed}",
        "engine.device=cpu",
        "engine.evaluate_every=2",
        "engine.tensorboard=false",
    ]


def train(family: str, size: str, seed: int, folder: Path) -> Row:
    """The scores of one detector."""
    spent = folder / "seconds.txt"
    if spent.is_file():
        score = json.loads((folder / "result.json").read_text())
    else:
        recipe = load.load(RECIPE, overrides(family, size, seed))
        since = time.process_time()
        score = execute(recipe, folder, overwrite=True, say=lambda _: None).student
        spent.write_text(f"{time.process_time() - since:.1f}")
    test = score["test"]
    return {
        "family": family,
        "size": size,
        "training_seed": seed,
        **{name: round(test[name], 2) for name in ("ap", "ap50", "ap75")},
        "validation_ap": round(score["validation"]["ap"], 2),
        "parameters": score["parameters"],
        "seconds": float(spent.read_text()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/detector-families"))
    results = Path(__file__).parent / "results" / "detector_families.csv"
    parser.add_argument("--out", type=Path, default=results)
    words = parser.parse_args(argv)
    jobs = [
        (family, size, seed, words.runs / f"{family}-{size}-{seed}")
        for seed in range(words.seeds)
        for size in SIZES
        for family in words.families
    ]
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(words.jobs, mp_context=spawned) as pool:
        rows = list(pool.map(train, *zip(*jobs, strict=True)))
    write(words.out, rows)
    for size in SIZES:
        for family in words.families:
            own = [row for row in rows if (row["family"], row["size"]) == (family, size)]
            sys.stdout.write(f"{family:<10} {size:<6} {summary(own)}\n")


def summary(rows: list[Row]) -> str:
    """Means over seeds, with the standard deviation of AP."""
    ap, ap50, ap75, seconds = (
        [float(row[name]) for row in rows] for name in ("ap", "ap50", "ap75", "seconds")
    )
    spread = statistics.stdev(ap) if len(ap) > 1 else 0.0
    means = [statistics.fmean(values) for values in (ap, ap50, ap75, seconds)]
    return (
        f"AP {means[0]:5.1f} ± {spread:.1f}  AP50 {means[1]:5.1f}  AP75 {means[2]:5.1f}  "
        f"{means[3]:5.0f} s  {int(rows[0]['parameters']):>9,} parameters"
    )


if __name__ == "__main__":
    main()

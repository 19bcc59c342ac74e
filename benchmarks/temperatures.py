"""How much each temperature helps: a figure and a table of a study over a grid of temperatures.

`.venv/bin/python benchmarks/temperatures.py STUDY` reads a study whose grid has
`method.temperature` and writes temperatures.svg, temperatures.png and temperatures.csv
into its folder: for every method and temperature the mean over seeds, its standard deviation, and
the paired gain over the control with a 95 % interval.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from stillhouse.study.results import Study, read_study

KEY = "temperature="
LOOKS = (("#1f6f8b", "o"), ("#c1502e", "s"), ("#6b8e23", "^"), ("#7b4ea3", "D"))


def table(study: Study) -> list[dict[str, Any]]:
    """A row for each method and temperature, in rising order."""
    rows = []
    for arm in study.taught:
        name, _, text = arm.label.rpartition(f" {KEY}")
        if not name:
            continue
        values = [*study.values(arm.label).values()]
        gain = study.gain(arm.label, arm.control)
        rows.append(
            {
                "method": name.partition(":")[0],
                "temperature": float(text.split()[0]),
                "seeds": len(values),
                "mean": mean(values),
                "deviation": stdev(values) if len(values) > 1 else 0.0,
                "gain": gain.mean if gain else float("nan"),
                "low": gain.low if gain else float("nan"),
                "high": gain.high if gain else float("nan"),
            }
        )
    return sorted(rows, key=lambda row: (row["method"], row["temperature"]))


def draw(rows: list[dict[str, Any]], study: Study, stem: Path) -> None:
    """Gain over temperature, one line a method, with intervals."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "temperatures"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.axhline(0, color="#888", linewidth=0.8)
    for method, (colour, marker) in zip(
        dict.fromkeys(r["method"] for r in rows), LOOKS, strict=False
    ):
        own = [row for row in rows if row["method"] == method]
        shift = 1.04 ** LOOKS.index((colour, marker))  # or whiskers would hide each other
        x, y = [shift * r["temperature"] for r in own], [r["gain"] for r in own]
        below = [r["gain"] - r["low"] for r in own]
        above = [r["high"] - r["gain"] for r in own]
        axes.errorbar(
            x, y, yerr=[below, above], color=colour, marker=marker, capsize=3, label=method
        )
    axes.set_xscale("log")
    ticks = sorted({row["temperature"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("temperature")
    axes.set_ylabel(f"gain in {study.headline} over the control, 95 % interval")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the study, write the files, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    folder = parser.parse_args(argv).study
    study = read_study(folder)
    rows = table(study)
    with (folder / "temperatures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows
        )
    draw(rows, study, folder / "temperatures")
    for r in rows:
        print(
            f"{r['method']:<8} {r['temperature']:>5g}  {r['mean']:.2f} ± {r['deviation']:.2f}  "
            f"{r['gain']:+.2f} ({r['low']:.2f} … {r['high']:.2f})"
        )


if __name__ == "__main__":
    main()

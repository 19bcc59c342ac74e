"""Synthetic pages: one with everything on it, and one with the minimum."""

from __future__ import annotations

import base64
import io
import math
from random import Random

from PIL import Image

from stillhouse.explain.section import (
    BarChart,
    CaptionedImage,
    Chart,
    DensityPlot,
    Heatmap,
    Histogram2D,
    ImageGrid,
    LineChart,
    ScatterPlot,
    Section,
    Series,
    Table,
)
from stillhouse.report.page import NetworkCost, Page, ScoreBar

METHODS = ("kd", "dkd", "dist", "dist+", "lskd", "ttm", "mld", "tld", "bckd", "l2d")
BAD = "<script>alert('1')</script> & \"<b>\""  # a name that a user may choose


def bare() -> Page:
    """A run with its answer only."""
    return Page("A run", ("student top1 71.8",), "top1", "test")


def run() -> Page:
    """One run: teacher, control and student."""
    return Page(
        title="Digits, 100 classes",
        answers=(
            "KD: student 81.4 ± 0.3, control 76.1 ± 2.3, teacher 86.1: "
            "+5.3 (95 % interval -0.2 … 10.8, 3 seeds)",
        ),
        headline="top1",
        split="test",
        bars=(
            ScoreBar("teacher", 86.1),
            ScoreBar("control", 76.1, 2.3, 75.2),
            ScoreBar("student", 81.4, 0.3, 80.9),
        ),
        costs=costs(),
        machine="8 cores of a processor, torch 2.7.0, one thread",
        curves=(curves(Random(3)),),
        tables=(scores(),),
        recipe="data: digits/numbers\nstudent: stillhouse/small\n",
        environment='{\n  "torch": "2.7.0"\n}',
        again=("# save the recipe above as recipe.yaml", "stillhouse run recipe.yaml"),
    )


def rich() -> Page:
    """A study of ten methods with every kind of chart, a matrix of 100 x 100 and long tables."""
    random = Random(0)
    means = [81.4 - 0.45 * place for place in range(len(METHODS))]
    return Page(
        title=f"Ten methods on digits {BAD}",
        answers=tuple(
            f"{name.upper()}: student {mean:.1f} ± 0.3, control 76.1 ± 2.3, teacher 86.1: "
            f"{mean - 76.1:+.1f} (95 % interval {mean - 78:.1f} … {mean - 73:.1f}, 3 seeds)"
            for name, mean in zip(METHODS, means, strict=True)
        ),
        headline="top1",
        split="test",
        bars=(
            ScoreBar("teacher", 86.1, paper=85.7),
            ScoreBar("control", 76.1, 2.3, 75.2),
            *(
                ScoreBar(name, mean, 0.2 + 0.1 * place, mean + 0.6 if place % 3 else None)
                for place, (name, mean) in enumerate(zip(METHODS, means, strict=True))
            ),
        ),
        costs=costs(),
        machine="8 cores of a processor, torch 2.7.0, one thread",
        notes=("The run of mld with seed 2 failed and is left out", f"A folder named {BAD}"),
        curves=(curves(random), many_lines(random), spread(), sparse()),
        tables=(scores(), methods(means)),
        sections=sections(random),
        recipe="data: digits/numbers\nstudent: stillhouse/small\nmethod: [kd]  # <- & more\n" * 8,
        environment='{\n  "torch": "2.7.0",\n  "python": "3.11.9"\n}',
        again=(
            "# save the recipe above as study.yaml",
            "stillhouse study study.yaml --methods none,kd,dkd,dist --seeds 3",
        ),
    )


def costs() -> tuple[NetworkCost, ...]:
    return (
        NetworkCost("teacher", "stillhouse/large", 318_912, 17_800_000, 3.7e-3, 41e-3, 47_600_000),
        NetworkCost("student", "stillhouse/small", 22_780, 1_900_000, 1.2e-3, 9.8e-3, 3_400_000),
    )


def scores() -> Table:
    rows = (
        ("teacher", 86.1, 97.9, 0.512, None),
        ("control", 76.1, 93.25, 0.911, 0.11),
        ("student", 81.4, 96.0, 0.702, -0.08),
    )
    return Table(
        ("network", "Top-1 accuracy", "Top-5 accuracy", "Loss", "bias"),
        rows,
        "Metrics on test",
    )


def methods(means: list[float]) -> Table:
    rows = tuple(
        (name, 3, f"{mean:.1f} ± 0.3", f"{mean - 76.1:+.1f}", 0.001 * place, 1234 * place)
        for place, (name, mean) in enumerate(zip(METHODS, means, strict=True), 1)
    )
    columns = ("method", "seeds", "Top-1 accuracy", "gain", "p (Holm)", "seconds per run")
    return Table(columns, rows, "Comparison of the methods", digits=3)


def curves(random: Random) -> Chart:
    series = []
    for name, end in (("teacher", 86.1), ("control", 76.1), ("student", 81.4)):
        y = tuple(end * (1 - math.exp(-(x + 1) / 12)) + random.gauss(0, 0.4) for x in range(60))
        series.append(Series(name, tuple(map(float, range(60))), y))
    return LineChart("Top-1 accuracy on validation", "epoch", "Top-1 accuracy", tuple(series))


def many_lines(random: Random) -> Chart:
    x = tuple(map(float, range(0, 3000, 30)))
    series = tuple(
        Series(name, x, tuple(8 * 10 ** (-v / 900 - random.random() / 9) + 0.002 * i for v in x))
        for i, name in enumerate(METHODS)
    )
    return LineChart("Distillation loss", "step", "loss", series)


def spread() -> Chart:
    x = tuple(map(float, range(20)))
    band = Series("student", x, tuple(v**0.5 for v in x), error=tuple(v / 25 for v in x))
    few = Series("control", x[::5], (0.4, 1.6, 2.5, 3.0), error=(0.3, 0.2, 0.4, 0.3))
    return LineChart("A band and error bars", "temperature", "divergence", (band, few))


def sparse() -> Chart:
    x = tuple(i / 10 for i in range(11))
    y = tuple(None if i in (2, 5, 7) else v**1.3 for i, v in enumerate(x))
    return LineChart(
        "Reliability diagram", "confidence", "accuracy", (Series("student", x, y),), diagonal=True
    )


def sections(random: Random) -> tuple[Section, ...]:
    text = (
        "Mean Pearson correlation of the probabilities of the student with the teacher's: 0.91 "
        "(control 0.84) within an image.",
        f"The student is better than the control on 71 of 100 classes. {BAD}",
    )
    return (
        Section("classes", "Classes", text, (classes(random),), (gains(random), grouped(random))),
        Section("all", "Every class", text[:1], (), (upright(random),)),
        Section(
            "confusion", "Confusion", text[:1], (), (matrix(random), small(), relation(random))
        ),
        Section("embedding", "Features", text[:1], (), (cloud(random, 10), cloud(random, 100))),
        Section("logits", "Logits", text, (), (joint(random),)),
        Section("images", "Examples", text[:1], (), (pictures(random), in_rows(random))),
    )


def classes(random: Random) -> Table:
    rows = tuple(
        (
            f"class {n}",
            n + 10,
            random.uniform(40, 99),
            random.uniform(-9, 12),
            None if n % 9 else "–",
        )
        for n in range(100)
    )
    columns = ("class", "images", "student, %", "gain over the control", "remark")
    return Table(columns, rows, "Accuracy of each class", digits=1)


def gains(random: Random) -> Chart:
    labels = tuple(f"class {n}" if n else "a class with a very long name indeed" for n in range(12))
    values = tuple(sorted((random.uniform(-9, 14) for _ in labels), reverse=True))
    half = tuple(random.uniform(0.5, 2) for _ in labels)
    series = Series("student", tuple(map(float, range(12))), values, error=half)
    return BarChart("Gain over the control", "percentage points", labels, (series,))


def grouped(random: Random) -> Chart:
    places = tuple(map(float, range(4)))
    names = ("teacher", "control", "student")
    series = tuple(Series(n, places, tuple(random.uniform(0.2, 1) for _ in places)) for n in names)
    return BarChart("Agreement", "share", ("easy", "hard", "rare", "all"), series)


def upright(random: Random) -> Chart:
    places = tuple(map(float, range(100)))
    values = tuple(None if p % 17 == 3 else random.uniform(30, 99) for p in places)
    labels = tuple(str(int(p)) for p in places)
    return BarChart("Accuracy", "accuracy, %", labels, (Series("student", places, values),))


def matrix(random: Random) -> Chart:
    values = tuple(
        tuple(
            random.uniform(60, 99) if x == y else max(0.0, random.gauss(-8, 6)) for x in range(100)
        )
        for y in range(100)
    )
    return Heatmap("Confusion matrix of the student", "predicted class", "true class", values)


def small() -> Chart:
    values = tuple(
        tuple(None if x == y == 3 else float(x - y) / 3 for x in range(6)) for y in range(6)
    )
    return Heatmap(
        "Difference of the confusion matrices",
        "predicted class",
        "true class",
        values,
        diverging=True,
    )


def relation(random: Random) -> Chart:
    values = tuple(tuple(random.gauss(0, 1) for _ in range(64)) for _ in range(16))
    return Heatmap("Difference of relations", "channel", "layer", values, diverging=True)


def cloud(random: Random, groups: int) -> Chart:
    series = []
    for name in ("teacher", "control", "student"):
        centres = [(random.gauss(0, 20), random.gauss(0, 20)) for _ in range(groups)]
        which = [i % groups for i in range(1000)]
        x = tuple(centres[g][0] + random.gauss(0, 4) for g in which)
        y = tuple(centres[g][1] + random.gauss(0, 4) for g in which)
        series.append(Series(name, x, y, tuple(which)))
    names = tuple(f"digit {n}" for n in range(groups))
    return ScatterPlot(f"Features of {groups} classes", tuple(series), names)


def joint(random: Random) -> Chart:
    densities = []
    for name, slope, noise in (("control", 0.5, 6.0), ("student", 0.9, 2.5)):
        counts = [[0.0] * 40 for _ in range(40)]
        for _ in range(5000):
            x = random.gauss(20, 6)
            y = 20 + slope * (x - 20) + random.gauss(0, noise)
            if 0 <= x < 40 and 0 <= y < 40:
                counts[int(y)][int(x)] += 1
        densities.append(Histogram2D(name, tuple(map(tuple, counts))))
    edges = tuple(-10 + i / 2 for i in range(41))
    title = "Logits of the target class"
    return DensityPlot(title, "teacher's logit", "student's logit", edges, edges, tuple(densities))


def pictures(random: Random) -> Chart:
    found = tuple(
        CaptionedImage(png(random), f"image {n}: predicted 4{n}, true 7{n}", f"Digits 7 and {n}")
        for n in range(12)
    )
    return ImageGrid("Most confident disagreements", found)


def in_rows(random: Random) -> Chart:
    """Rows that belong together, wider than a phone."""
    found = tuple(CaptionedImage(png(random), f"shares class {n}", f"Image {n}") for n in range(12))
    return ImageGrid("Nearest images", found, 6)


def png(random: Random, side: int = 24) -> str:
    image = Image.new("L", (side, side))
    image.putdata([random.randrange(256) if (i // 4) % 3 else 20 for i in range(side * side)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()

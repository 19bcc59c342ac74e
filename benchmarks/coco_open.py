"""How long it takes to open a data set of the size of COCO 2017 as boxes.

`.venv/bin/python benchmarks/coco_open.py` writes a file of random instances with polygons, as large
as that of COCO's train images, and empty files as images, to a temporary folder; prints the
seconds, and writes benchmarks/results/coco_open.csv: 11 s on a busy machine, most of them parsing.
"""

from __future__ import annotations

import random
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rows import Row, options, write
from stillhouse.data.objects.coco import read_coco

IMAGES, OBJECTS, CATEGORIES = 118_287, 860_001, 80
HEIGHT, WIDTH = 480, 640
POINTS = 25  # of a polygon
ROUNDS, WARMUP = 3, 0


def write_instances(root: Path) -> Path:
    """The files of a train split: instances in JSON, and an empty file for each image."""
    draw = random.Random(0)
    folder = root / "train2017"
    folder.mkdir()
    (root / "annotations").mkdir()
    file = root / "annotations" / "instances_train2017.json"
    with file.open("w") as out:
        out.write('{"info": {}, "licenses": [], "images": [')
        for number in range(IMAGES):
            name = f"{number:012d}.jpg"
            (folder / name).touch()
            out.write(
                f'{", " * bool(number)}{{"license": 1, "file_name": "{name}", '
                f'"height": {HEIGHT}, "width": {WIDTH}, "id": {number}}}'
            )
        out.write('], "annotations": [')
        for number in range(OBJECTS):
            out.write(", " * bool(number) + instance(draw, number))
        names = (f'{{"id": {i}, "name": "class {i}"}}' for i in range(CATEGORIES))
        out.write(f'], "categories": [{", ".join(names)}]}}')
    return file


def instance(draw: random.Random, number: int) -> str:
    """One annotation with a polygon inside of its box."""
    x, y = draw.random() * 500, draw.random() * 400
    width, height = 2 + draw.random() * 100, 2 + draw.random() * 70
    points = (
        f"{x + draw.random() * width:.2f}, {y + draw.random() * height:.2f}" for _ in range(POINTS)
    )
    return (
        f'{{"segmentation": [[{", ".join(points)}]], "area": {width * height / 2:.4f}, '
        f'"iscrowd": 0, "image_id": {draw.randrange(IMAGES)}, '
        f'"bbox": [{x:.2f}, {y:.2f}, {width:.2f}, {height:.2f}], '
        f'"category_id": {draw.randrange(CATEGORIES)}, "id": {number}}}'
    )


def measure(root: Path, rounds: int) -> Row:
    """Seconds to open the data set and to take its fingerprint, medians of some rounds."""
    opened, printed = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        source = read_coco(root, "train")
        opened.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert len(source.fingerprint) == 64
        printed.append(time.perf_counter() - start)
    return {
        "images": len(source),
        "objects": len(source.targets.labels),
        "open (s)": round(statistics.median(opened), 1),
        "fingerprint (s)": round(statistics.median(printed), 1),
        "peak memory (GB)": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "coco_open", rounds=ROUNDS, warmup=WARMUP)
    with tempfile.TemporaryDirectory() as folder:
        file = write_instances(Path(folder))
        for _ in range(chosen.warmup):
            measure(Path(folder), 1)
        row: Row = {"file (MB)": round(file.stat().st_size / 1e6)}
        row |= measure(Path(folder), chosen.rounds)
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    write(chosen.out, [row])


if __name__ == "__main__":
    main()

"""Boxes in the text files of YOLO, one beside each image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stillhouse.data.formats.text import read_lines, require_folder
from stillhouse.data.objects.annotations import Annotations, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.objects.yolo_config import find_images, label_file, read_config
from stillhouse.errors import UserError

NAME = "yolo/objects"

_LARGEST = 2.0  # a fraction above it is in pixels; a little above 1 is a box outside of the image
_REMEDY = "write one object per line: class, x and y of the centre, width, height"


class Line(NamedTuple):
    """One object of a text file."""

    number: int
    label: int
    box: tuple[float, ...]  # x1, y1, x2, y2 in fractions of the image


def read_yolo(path: Path, split: str, *, config: str = "data.yaml", **policy: str) -> ObjectSource:
    """The images of a split, sorted by path; an image without a text file has no objects.

    `config` is a YAML file below the path with `names`, and a folder or list of images for each
    split. The text file of images/a/b.jpg is labels/a/b.txt, with `class x y width height` in
    fractions of the image; polygons become their boxes. `policy` has the options of `ObjectPolicy`.
    """
    checked = ObjectPolicy(**policy)
    known = read_config(require_folder(NAME, path) / config)
    paths = find_images(known, split)
    files = [label_file(known.root / path) for path in paths]
    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(_read, files))
    if all(part is None for part in lines):
        raise UserError(
            f"{NAME}/{split}: none of the {len(files)} images has a file of labels, the first "
            f"would be {files[0]}; put them there"
        )
    found = _annotations(f"{NAME}/{split}", known.root, paths, files, lines, known.classes)
    return build_source(found, checked)


def _annotations(
    name: str,
    root: Path,
    paths: Sequence[str],
    files: Sequence[Path],
    lines: Sequence[list[Line] | None],
    classes: tuple[str, ...],
) -> Annotations:
    image = np.arange(len(paths)).repeat([len(part or ()) for part in lines])
    things = [line for part in lines for line in part or ()]
    labels = np.array([line.label for line in things], dtype=np.int64)
    return Annotations(
        name=name,
        root=root,
        paths=paths,
        shapes=np.zeros((len(paths), 2), dtype=np.int64),
        boxes=np.array([line.box for line in things], dtype=np.float64).reshape(-1, 4),
        labels=np.where(labels < len(classes), labels, -1),
        image=image,
        classes=classes,
        place=lambda i: f"{files[image[i]]}, line {things[i].number}",
        label=lambda i: f"class {things[i].label}",
        remedy="add their names to the YAML file",
        fractions=True,
    )


def _read(file: Path) -> list[Line] | None:
    """The objects of a text file; None where it does not exist."""
    if not file.is_file():
        return None
    return [_line(f"{file}, line {n}", n, line) for n, line in read_lines(file, _REMEDY).items()]


def _line(where: str, number: int, text: str) -> Line:
    try:
        label, *values = map(float, text.split())
    except ValueError:
        raise UserError(f"{where}: expected numbers, got {text[:60]!r}; {_REMEDY}") from None
    if not 0 <= label < 2**31 or label != int(label):
        raise UserError(f"{where}: the class must be a whole number, got {label:g}; {_REMEDY}")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f"{where}: expected 5 numbers, or an odd number from 7 on for a polygon, got "
            f"{len(values) + 1}; {_REMEDY}"
        )
    if not all(abs(value) <= _LARGEST for value in values):  # NaN is refused, too
        raise UserError(
            f"{where}: coordinates must be fractions of width and height, got {text[:60]!r}; "
            "divide them by the size of the image"
        )
    return Line(number, int(label), _box(values))


def _box(values: Sequence[float]) -> tuple[float, ...]:
    """x1, y1, x2, y2 of a centre with width and height, or of a polygon x, y, x, y, ..."""
    if len(values) == 4:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    across, down = values[::2], values[1::2]
    return min(across), min(down), max(across), max(down)

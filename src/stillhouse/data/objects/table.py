"""Boxes in CSV tables, one object a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stillhouse.data.formats.table import (
    CLASSES,
    check_header,
    check_width,
    given_classes,
    read_rows,
    tidy_path,
)
from stillhouse.data.formats.text import require_folder
from stillhouse.data.objects.annotations import Annotations, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.errors import UserError, did_you_mean

NAME = "csv/objects"
# the names that each column may have
COLUMNS = {
    "path": ("path", "filename"),
    "label": ("label", "class"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
}

_REMEDY = "write one object per line under a header with the columns path,label,x1,y1,x2,y2"


@dataclass
class Table:
    """The content of one table: N images and M objects."""

    file: Path
    images: dict[str, int] = field(default_factory=dict)  # N paths with their indices
    lines: list[int] = field(default_factory=list)  # M
    image: list[int] = field(default_factory=list)  # M
    names: list[str] = field(default_factory=list)  # M classes
    boxes: list[list[float]] = field(default_factory=list)  # M times x1, y1, x2, y2


def read_table(
    path: Path, split: str, *, classes: Sequence[object] | None = None, **policy: str
) -> ObjectSource:
    """The images of `path/split.csv`, in the order of their first rows.

    A row has a path relative to the folder, a class and the corners of a box in pixels; one that
    ends after the path is an image without objects. The classes are `classes`, else the lines of
    `classes.txt`, else the sorted labels of the training table. `policy` has the options of
    `ObjectPolicy`.
    """
    checked = ObjectPolicy(**policy)
    root = require_folder(NAME, path)
    given = given_classes(root, classes)
    table = _read(root / f"{split}.csv")
    known = given or _classes(table if split == "train" else _training(root))
    return build_source(_annotations(f"{root.name}/{split}", root, table, known), checked)


def _training(root: Path) -> Table:
    file = root / "train.csv"
    if not file.is_file():
        raise UserError(
            f"{file}, which defines the classes, does not exist; list them in {root / CLASSES}"
        )
    return _read(file)


def _classes(table: Table) -> tuple[str, ...]:
    if not table.names:
        raise UserError(f"{table.file} has no objects; list the classes in {CLASSES}")
    return tuple(sorted(set(table.names)))


def _annotations(name: str, root: Path, table: Table, classes: tuple[str, ...]) -> Annotations:
    index = {kind: i for i, kind in enumerate(classes)}
    return Annotations(
        name=name,
        root=root,
        paths=list(table.images),
        shapes=np.zeros((len(table.images), 2), dtype=np.int64),
        boxes=np.array(table.boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.array([index.get(name, -1) for name in table.names], dtype=np.int64),
        image=np.array(table.image, dtype=np.int64),
        classes=classes,
        place=lambda i: f"{table.file}, line {table.lines[i]}",
        label=lambda i: repr(table.names[i]),
        remedy=f"correct them, or list all classes in {root / CLASSES}",
    )


def _read(file: Path) -> Table:
    rows = read_rows(file, _REMEDY)
    header = [name.strip() for name in next(rows, (0, []))[1]]
    check_header(file, header)
    columns = [_column(file, header, name) for name in COLUMNS]
    table = Table(file)
    for number, row in rows:
        check_width(file, number, row, header)
        path, label, *corners = (row[column].strip() for column in columns)
        if not path:
            raise UserError(
                f"{file}, line {number}: the column {header[columns[0]]!r} is empty; fill it in"
            )
        image = table.images.setdefault(tidy_path(path), len(table.images))
        if label or any(corners):
            table.lines.append(number)
            table.image.append(image)
            table.names.append(_label(f"{file}, line {number}", label))
            table.boxes.append(_box(f"{file}, line {number}", corners))
    if not table.images:
        raise UserError(f"{file} lists no images; {_REMEDY}")
    return table


def _column(file: Path, header: Sequence[str], name: str) -> int:
    """The index of a column under any of its names."""
    if found := [i for i, column in enumerate(header) if column.lower() in COLUMNS[name]]:
        return found[0]
    hint = did_you_mean(name, header) or f"; it has {', '.join(header) or 'none'}"
    raise UserError(f"{file} has no column {' or '.join(COLUMNS[name])}{hint}")


def _label(where: str, label: str) -> str:
    if not label:
        raise UserError(f"{where}: a box has no label; add it, or leave the box empty, too")
    return label


def _box(where: str, corners: Sequence[str]) -> list[float]:
    try:
        return [float(corner) for corner in corners]
    except ValueError:
        raise UserError(
            f"{where}: x1, y1, x2, y2 must be numbers, got {', '.join(corners)[:60]!r}; correct "
            "them, or leave label and box empty for an image without objects"
        ) from None

"""COCO, and data sets of one's own in its format, as boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.formats.coco import Instances, load_instances
from stillhouse.data.formats.table import tidy_path
from stillhouse.data.formats.text import require_folder
from stillhouse.data.objects.annotations import Annotations, FloatArray, IntArray, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.coco_places import NAME, find_files
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import check_choice
from stillhouse.errors import UserError

YEARS = (2017, 2014)

_REMEDY = "download or export the annotations again"


def read_coco(
    path: Path,
    split: str,
    *,
    year: int = 2017,
    images: str = "",
    annotations: str = "",
    **policy: str,
) -> ObjectSource:
    """The images of an instances file, sorted by file name, with their objects.

    `annotations` and `images` are a JSON file and a folder below the path, with `{split}` for the
    split; without them, the files of COCO or of an export are looked for. The classes are the
    categories in the order of their ids. Crowds are kept with their flag. `policy` has the options
    of `ObjectPolicy`.
    """
    checked = ObjectPolicy(**policy)
    check_choice("year", year, YEARS)
    file, folder = find_files(require_folder(NAME, path), split, year, annotations, images)
    content = load_instances(file, "put the annotations there", _REMEDY)
    return build_source(_annotations(content, f"{NAME}/{split}", folder), checked)


def _annotations(content: Instances, name: str, folder: Path) -> Annotations:
    names = [tidy_path(name) for name in content.index("images", "file_name")]
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    kinds, classes, labels = _labels(content)
    boxes = _boxes(content)
    things = content.tables["annotations"]
    return Annotations(
        name=name,
        root=folder,
        paths=[names[i] for i in order],
        shapes=_shapes(content)[order],
        boxes=boxes,
        labels=labels,
        image=place[np.array(content.image_rows(), dtype=np.int64)],
        classes=classes,
        place=lambda i: f"{content.file}: annotations[{i}]",
        label=lambda i: f"category {kinds[i]}",
        remedy=f"add their categories to {content.file}",
        crowd=np.array([bool(thing.get("iscrowd")) for thing in things], dtype=bool),
        area=_areas(content, boxes),
    )


def _shapes(content: Instances) -> IntArray:
    """Height and width of each image, 0 where they are absent: -> (N, 2)."""
    rows = content.tables["images"]
    shapes = [(row.get("height") or 0, row.get("width") or 0) for row in rows]
    for i, sides in enumerate(shapes):
        if any(type(side) is not int or side < 0 for side in sides):
            raise UserError(
                f"{content.file}: height and width of images[{i}] must be whole numbers, "
                f"got {sides[0]!r} and {sides[1]!r}; {_REMEDY}"
            )
    return np.array(shapes, dtype=np.int64).reshape(-1, 2)


def _labels(content: Instances) -> tuple[Sequence[int], tuple[str, ...], IntArray]:
    """The category of each object, the classes, and the class of each object: -> (M,)."""
    names = list(content.index("categories", "name"))
    rows = content.index("categories", "id")
    index = {number: i for i, number in enumerate(sorted(rows))}
    kinds = content.column("annotations", "category_id")
    labels = np.array([index.get(kind, -1) for kind in kinds], dtype=np.int64)
    return kinds, tuple(names[rows[number]] for number in index), labels


def _boxes(content: Instances) -> FloatArray:
    """The boxes as x1, y1, x2, y2: -> (M, 4)."""
    rows = [thing.get("bbox") for thing in content.tables["annotations"]]
    for i, row in enumerate(rows):
        if type(row) is not list or len(row) != 4 or not all(map(_is_number, row)):
            raise UserError(
                f"{content.file}: bbox of annotations[{i}] must be 4 numbers x, y, width, height, "
                f"got {row!r}; {_REMEDY}"
            )
    boxes = np.array(rows, dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _areas(content: Instances, boxes: FloatArray) -> FloatArray:
    """The annotated area of each object, that of its box where it is absent: -> (M,)."""
    values = [thing.get("area") for thing in content.tables["annotations"]]
    for i, value in enumerate(values):
        if value is not None and not (_is_number(value) and math.isfinite(value)):
            raise UserError(
                f"{content.file}: area of annotations[{i}] must be a number, got {value!r}; "
                f"{_REMEDY}"
            )
    areas = np.array(values, dtype=np.float64)  # None becomes NaN
    return np.where(np.isnan(areas), np.abs(boxes[:, 2:] - boxes[:, :2]).prod(1), areas)


def _is_number(value: Any) -> bool:
    return type(value) is float or type(value) is int

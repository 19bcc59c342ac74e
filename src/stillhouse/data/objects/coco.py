"""COCO, and data sets of one's own in its format, as boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.data.formats.coco import Instances, load_instances
from stillhouse.data.formats.table import tidy_path
from stillhouse.data.formats.text import require_folder
from stillhouse.data.objects.annotations import Annotations, FloatArray, IntArray, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.coco_places import find_files
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import check_choice
from stillhouse.errors import UserError, quote

NAME = "coco/objects"
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
    content, folder = open_instances(NAME, path, split, year, annotations, images)
    return build_source(read_annotations(content, f"{NAME}/{split}", folder), checked)


def open_instances(
    name: str,
    path: Path,
    split: str,
    year: int,
    annotations: str,
    images: str,
    outlines: bool = False,
) -> tuple[Instances, Path]:
    """The instances file of a split of the data set `name`, and the folder of its images."""
    check_choice("year", year, YEARS)
    root = require_folder(name, path)
    file, folder = find_files(name, root, split, year, annotations, images)
    return load_instances(file, "put the annotations there", _REMEDY, outlines), folder


def read_annotations(content: Instances, name: str, folder: Path) -> Annotations:
    """The images of an instances file, sorted by file name, with their objects in its order."""
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
                f"got {quote(sides[0])} and {quote(sides[1])}; {_REMEDY}"
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
    boxes = _numbers(rows) if rows else np.zeros((0, 4))
    if boxes.shape != (len(rows), 4):
        i = next(i for i, row in enumerate(rows) if _numbers([row]).shape != (1, 4))
        raise UserError(
            f"{content.file}: bbox of annotations[{i}] must be 4 numbers x, y, width, height, "
            f"got {quote(rows[i])}; {_REMEDY}"
        )
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _areas(content: Instances, boxes: FloatArray) -> FloatArray:
    """The annotated area of each object, that of its box where it is absent: -> (M,)."""
    with np.errstate(invalid="ignore"):  # boxes that are not finite are refused later
        own = np.abs(boxes[:, 2:] - boxes[:, :2]).prod(1)
    given = [thing.get("area") for thing in content.tables["annotations"]]
    values = [box if area is None else area for box, area in zip(own, given, strict=True)]
    areas = _numbers(values)
    if areas.shape != (len(values),) or not np.isfinite(areas).all():
        i = next(i for i, value in enumerate(values) if not _is_finite(value))
        raise UserError(
            f"{content.file}: area of annotations[{i}] must be a number, got {quote(values[i])}; "
            f"{_REMEDY}"
        )
    return areas


def _is_finite(value: Any) -> bool:
    number = _numbers([value])
    return number.shape == (1,) and bool(np.isfinite(number).all())


def _numbers(rows: Sequence[Any]) -> FloatArray:
    """Numbers, or rows of as many numbers each: -> (N,), (N, K), or of no dimension for others."""
    try:
        values = np.array(rows)
    except ValueError:  # rows of different lengths
        return np.array(np.nan)
    return values.astype(np.float64) if values.dtype.kind in "if" else np.array(np.nan)

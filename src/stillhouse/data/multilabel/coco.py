"""COCO as a multi-label data set, from the instance annotations as its authors publish them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy, check_bool, check_choice
from stillhouse.data.multilabel.text_files import read_bytes, require_folder
from stillhouse.errors import UserError

YEARS = (2014, 2017)

_NAME = "coco/labels"
_PARTS = {"train": "train", "test": "val"}  # the labels of the test set are not public
_REMEDY = "download the annotations again"
# Polygons are nine tenths of the time that it takes to parse the file, and are not needed.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[^"{}]*\]')


def read_coco(
    path: Path,
    split: str,
    *,
    year: int = 2014,
    crowd: bool = True,
    unlabelled: str = "skip",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> FileSource:
    """COCO's train images (`train`) or val images (`test`), sorted by file name.

    The classes are the categories, in alphabetical order; an image has those of its objects.
    Without `crowd`, crowd annotations do not count.
    """
    policy = SkipPolicy(unlabelled, unknown, missing, broken)
    check_choice("split", split, tuple(_PARTS))
    check_choice("year", year, YEARS)
    check_bool("crowd", crowd)
    root, part = require_folder(_NAME, path), f"{_PARTS[split]}{year}"
    file = _annotations(root, part, year)
    content = _loaded(file)
    names, rows = _images(file, content)
    labels, classes = _labels(file, content, rows, crowd)
    order = sorted(range(len(names)), key=names.__getitem__)
    scanned = ScannedImages(
        name=f"{_NAME}/{split}",
        root=_place(root, part),
        paths=[names[i] for i in order],
        labels=[labels[i] for i in order],
        classes=classes,
        remedy=f"add their categories to {file}",
    )
    return build_source(scanned, policy)


def _annotations(root: Path, part: str, year: int) -> Path:
    file = root / "annotations" / f"instances_{part}.json"
    others = [other for other in YEARS if other != year]
    for other in others:
        twin = file.with_name(file.name.replace(str(year), str(other)))
        if twin.is_file() and not file.is_file():
            raise UserError(f"{file} does not exist, but {twin.name} does; set year={other}")
    return file


def _place(root: Path, part: str) -> Path:
    places = (root / part, root / "images" / part)
    if folder := next((place for place in places if place.is_dir()), None):
        return folder
    raise UserError(f"{_NAME}: neither {places[0]} nor {places[1]} exists; put the images there")


def _loaded(file: Path) -> Mapping[str, Sequence[Any]]:
    data = read_bytes(file, "put the annotations of that year there")
    try:
        content: Any = json.loads(_POLYGONS.sub(b'"segmentation": 0', data))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or truncated ({error}); {_REMEDY}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list of {key}; use the instances file")
    return {key: content[key] for key in ("images", "annotations", "categories")}


def _column(file: Path, content: Mapping[str, Sequence[Any]], table: str, key: str) -> list[Any]:
    """One value of each image, annotation or category: a string for names, else an int."""
    kind = str if key in ("file_name", "name") else int
    values = [row.get(key) if isinstance(row, dict) else None for row in content[table]]
    wrong = next((i for i, value in enumerate(values) if type(value) is not kind), None)
    if wrong is not None:
        raise UserError(
            f"{file}: {key} of {table}[{wrong}] must be {kind.__name__}, got {values[wrong]!r}; "
            f"{_REMEDY}"
        )
    return values


def _index_of(file: Path, table: str, ids: Sequence[Any]) -> dict[Any, int]:
    """The index of each id; raises a UserError for duplicates."""
    indices = {number: i for i, number in enumerate(ids)}
    if len(indices) < len(ids):
        first = next(i for i, number in enumerate(ids) if indices[number] != i)
        raise UserError(
            f"{file}: {table}[{first}] and {table}[{indices[ids[first]]}] are both "
            f"{ids[first]!r}; {_REMEDY}"
        )
    return indices


def _images(file: Path, content: Mapping[str, Sequence[Any]]) -> tuple[list[str], dict[int, int]]:
    """The file name of each image, and the index of each image id."""
    names = _column(file, content, "images", "file_name")
    _index_of(file, "images", names)
    return names, _index_of(file, "images", _column(file, content, "images", "id"))


def _labels(
    file: Path, content: Mapping[str, Sequence[Any]], rows: Mapping[int, int], crowd: bool
) -> tuple[list[list[str]], tuple[str, ...]]:
    """The labels of each image, and the classes."""
    names = _column(file, content, "categories", "name")
    _index_of(file, "categories", names)
    categories = _index_of(file, "categories", _column(file, content, "categories", "id"))
    labels: list[list[str]] = [[] for _ in rows]
    images = _column(file, content, "annotations", "image_id")
    kinds = _column(file, content, "annotations", "category_id")
    for i, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        if image not in rows:
            raise UserError(
                f"{file}: annotations[{i}] belongs to image {image}, which is not among the "
                f"{len(rows)} images; {_REMEDY}"
            )
        if crowd or not content["annotations"][i].get("iscrowd"):
            place = categories.get(kind)
            labels[rows[image]].append(f"category {kind}" if place is None else names[place])
    return labels, tuple(sorted(names))

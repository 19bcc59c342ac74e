"""COCO with the labels of each image, from the instances as its authors publish them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.multilabel.album import Album, Found, album
from stillhouse.data.multilabel.policy import Policy, check_choice, check_switch
from stillhouse.data.multilabel.text import bytes_of, existing
from stillhouse.errors import UserError

YEARS = (2014, 2017)

_NAME = "coco/labels"
_PARTS = {"train": "train", "test": "val"}  # the labels of its own test set are not public
_MEND = "fetch the annotations again"
# Outlines are nine tenths of the time that it takes to read the file, and nobody asks for them.
_OUTLINE = re.compile(rb'"segmentation"\s*:\s*\[[^"{}]*\]')


def coco(
    path: Path,
    split: str,
    *,
    year: int = 2014,
    crowd: bool = True,
    unlabelled: str = "skip",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> Album:
    """COCO's train images (`train`) or val images (`test`), sorted by their file names.

    A class is a category, in alphabetical order, and an image has those of its objects; without
    `crowd` groups that are outlined as one do not count.
    """
    policy = Policy(unlabelled, unknown, missing, broken)
    check_choice("split", split, tuple(_PARTS))
    check_choice("year", year, YEARS)
    check_switch("crowd", crowd)
    root, part = existing(_NAME, path), f"{_PARTS[split]}{year}"
    file = _annotations(root, part, year)
    content = _loaded(file)
    names, rows = _images(file, content)
    labels, classes = _labels(file, content, rows, crowd)
    order = sorted(range(len(names)), key=names.__getitem__)
    found = Found(
        name=f"{_NAME}/{split}",
        root=_place(root, part),
        paths=[names[i] for i in order],
        labels=[labels[i] for i in order],
        classes=classes,
        mend=f"add their categories to {file}",
    )
    return album(found, policy)


def _annotations(root: Path, part: str, year: int) -> Path:
    file = root / "annotations" / f"instances_{part}.json"
    others = [other for other in YEARS if other != year]
    for other in others:
        twin = file.with_name(file.name.replace(str(year), str(other)))
        if twin.is_file() and not file.is_file():
            raise UserError(f"{file} is not there, but {twin.name} is; say year={other}")
    return file


def _place(root: Path, part: str) -> Path:
    places = (root / part, root / "images" / part)
    if found := next((place for place in places if place.is_dir()), None):
        return found
    raise UserError(f"{_NAME}: the images of {part} are neither in {places[0]} nor in {places[1]}")


def _loaded(file: Path) -> Mapping[str, Sequence[Any]]:
    data = bytes_of(file, "put the annotations of its year there")
    try:
        content: Any = json.loads(_OUTLINE.sub(b'"segmentation": 0', data))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or cut short ({error}); {_MEND}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list of {key}; give the file of instances")
    return {key: content[key] for key in ("images", "annotations", "categories")}


def _column(file: Path, content: Mapping[str, Sequence[Any]], table: str, key: str) -> list[Any]:
    """One value of each image, annotation or category: a name, or else a whole number."""
    kind = str if key in ("file_name", "name") else int
    values = [row.get(key) if isinstance(row, dict) else None for row in content[table]]
    wrong = next((i for i, value in enumerate(values) if type(value) is not kind), None)
    if wrong is not None:
        what = "text" if kind is str else "a whole number"
        raise UserError(
            f"{file}: {table}[{wrong}] should have {what} as its {key}, and has {values[wrong]!r}; "
            f"{_MEND}"
        )
    return values


def _numbered(file: Path, table: str, ids: Sequence[Any]) -> dict[Any, int]:
    """The place of each id, refused where two are the same."""
    places = {number: i for i, number in enumerate(ids)}
    if len(places) < len(ids):
        double = next(i for i, number in enumerate(ids) if places[number] != i)
        raise UserError(
            f"{file}: {table}[{double}] and {table}[{places[ids[double]]}] are both "
            f"{ids[double]!r}; {_MEND}"
        )
    return places


def _images(file: Path, content: Mapping[str, Sequence[Any]]) -> tuple[list[str], dict[int, int]]:
    """The name of each image, and where its id is found."""
    names = _column(file, content, "images", "file_name")
    _numbered(file, "images", names)
    return names, _numbered(file, "images", _column(file, content, "images", "id"))


def _labels(
    file: Path, content: Mapping[str, Sequence[Any]], rows: Mapping[int, int], crowd: bool
) -> tuple[list[list[str]], tuple[str, ...]]:
    """The labels of each image, and the classes."""
    names = _column(file, content, "categories", "name")
    _numbered(file, "categories", names)
    categories = _numbered(file, "categories", _column(file, content, "categories", "id"))
    labels: list[list[str]] = [[] for _ in rows]
    images = _column(file, content, "annotations", "image_id")
    kinds = _column(file, content, "annotations", "category_id")
    for i, (image, kind) in enumerate(zip(images, kinds, strict=True)):
        if image not in rows:
            raise UserError(
                f"{file}: annotations[{i}] is of image {image}, which is not among its "
                f"{len(rows)} images; {_MEND}"
            )
        if crowd or not content["annotations"][i].get("iscrowd"):
            place = categories.get(kind)
            labels[rows[image]].append(f"category {kind}" if place is None else names[place])
    return labels, tuple(sorted(names))

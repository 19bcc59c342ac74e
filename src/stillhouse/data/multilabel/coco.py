"""COCO as a multi-label data set, from the instance annotations as its authors publish them."""

from __future__ import annotations

from pathlib import Path

from stillhouse.data.formats.coco import Instances, first_folder, load_instances, other_year
from stillhouse.data.formats.text import require_folder
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy
from stillhouse.data.problems import check_bool, check_choice

YEARS = (2014, 2017)

_NAME = "coco/labels"
_PARTS = {"train": "train", "test": "val"}  # the labels of the test set are not public
_REMEDY = "download the annotations again"


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
    file = root / "annotations" / f"instances_{part}.json"
    other_year(file, year, YEARS)
    content = load_instances(file, "put the annotations of that year there", _REMEDY)
    names = list(content.index("images", "file_name"))
    labels, classes = _labels(content, crowd)
    order = sorted(range(len(names)), key=names.__getitem__)
    scanned = ScannedImages(
        name=f"{_NAME}/{split}",
        root=first_folder(_NAME, (root / part, root / "images" / part)),
        paths=[names[i] for i in order],
        labels=[labels[i] for i in order],
        classes=classes,
        remedy=f"add their categories to {file}",
    )
    return build_source(scanned, policy)


def _labels(content: Instances, crowd: bool) -> tuple[list[list[str]], tuple[str, ...]]:
    """The labels of each image, and the classes."""
    names = list(content.index("categories", "name"))
    categories = content.index("categories", "id")
    labels: list[list[str]] = [[] for _ in content.tables["images"]]
    kinds = content.column("annotations", "category_id")
    for i, (image, kind) in enumerate(zip(content.image_rows(), kinds, strict=True)):
        if crowd or not content.tables["annotations"][i].get("iscrowd"):
            place = categories.get(kind)
            labels[image].append(f"category {kind}" if place is None else names[place])
    return labels, tuple(sorted(names))

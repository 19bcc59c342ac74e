"""Pascal VOC as a multi-label data set, from the folders as its authors publish them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from stillhouse.data.formats.text import require_folder
from stillhouse.data.formats.voc import (
    CLASSES,
    YEARS,
    class_of,
    find_root,
    is_difficult,
    read_annotation,
    read_image_set,
)
from stillhouse.data.images import find_missing
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy, apply_policy
from stillhouse.data.problems import Problem, check_bool, check_choice

_NAME = "voc/labels"
_WITHOUT_ANNOTATIONS = Problem(
    "missing",
    "images have no annotations (those of VOC 2012's test set are not public)",
    "put them there, choose another image set with set=val",
)


def read_voc(
    path: Path,
    split: str,
    *,
    year: int = 2007,
    set: str = "",
    difficult: bool = True,
    unlabelled: str = "keep",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> FileSource:
    """The images of a VOC image set, in its order: the one named `set`, by default the split.

    An image has the classes of its objects; without `difficult`, objects marked as difficult do
    not count.
    """
    policy = SkipPolicy(unlabelled, unknown, missing, broken)
    check_choice("year", year, YEARS)
    check_bool("difficult", difficult)
    root = find_root(_NAME, require_folder(_NAME, path), year)
    names = read_image_set(root, set or split)
    name, files = f"{_NAME}/{split}", [f"Annotations/{name}.xml" for name in names]
    missing_files = find_missing(root, files)
    kept, notes = apply_policy(name, root, files, missing_files, _WITHOUT_ANNOTATIONS, policy)
    scanned = ScannedImages(
        name=name,
        root=root,
        paths=[f"JPEGImages/{name}.jpg" for name in compress(names, kept)],
        labels=[_objects(root / file, difficult) for file in compress(files, kept)],
        classes=CLASSES,
        remedy="correct the names of these objects",
        notes=notes,
    )
    return build_source(scanned, policy)


def _objects(file: Path, difficult: bool) -> Sequence[str]:
    """The class of each object in an annotation file."""
    named = [(class_of(file, one), one) for one in read_annotation(file).findall("object")]
    return [name for name, thing in named if difficult or not is_difficult(thing)]

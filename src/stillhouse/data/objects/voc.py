"""Pascal VOC, and data sets of one's own in its format, as boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from stillhouse.data.formats.table import check_classes
from stillhouse.data.formats.text import require_folder
from stillhouse.data.formats.voc import (
    CLASSES,
    YEARS,
    class_of,
    find_root,
    image_sets,
    is_difficult,
    read_annotation,
    read_image_set,
)
from stillhouse.data.images import find_missing, list_images
from stillhouse.data.objects.annotations import Annotations, ObjectPolicy
from stillhouse.data.objects.build import build_source
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import MissingSplit, Problem, check_choice, settle
from stillhouse.errors import UserError, quote

NAME = "voc/objects"

_REMEDY = "correct it, or download it again"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_WITHOUT_ANNOTATIONS = Problem(
    "missing",
    "images have no annotations (those of VOC 2012's test set are not public)",
    "put them there, choose another image set with set=val",
)


class Thing(NamedTuple):
    """One object of an annotation file."""

    place: str  # the file and the number of the object
    name: str
    box: tuple[float, ...]  # x1, y1, x2, y2 in pixels
    difficult: bool


class Description(NamedTuple):
    """The content of an annotation file."""

    shape: tuple[int, int]  # height and width, 0 where they are absent
    things: list[Thing]


def read_voc(
    path: Path,
    split: str,
    *,
    year: int = 2007,
    set: str = "",
    classes: Sequence[object] | None = None,
    **policy: str,
) -> ObjectSource:
    """The images of an image set, in its order: the one named `set`, by default the split.

    The classes are `classes`, else those of VOC, else, for folders outside of VOC2007 or VOC2012,
    the names in the annotations of train in alphabetical order. Difficult objects are kept with
    their flag. `policy` has the options of `ObjectPolicy`.
    """
    checked = ObjectPolicy(**policy)
    check_choice("year", year, YEARS)
    root = find_root(NAME, require_folder(NAME, path), year)
    names = read_image_set(root, set or _image_set(root, split))
    known = check_classes(classes) if classes is not None else _classes(root)
    files = [f"Annotations/{name}.xml" for name in names]
    kept, notes = settle(
        f"{NAME}/{split}",
        _WITHOUT_ANNOTATIONS,
        find_missing(root, files),
        checked.missing,
        lambda i: str(root / files[i]),
    )
    names = [name for name, keep in zip(names, kept, strict=True) if keep]
    return build_source(_annotations(f"{NAME}/{split}", root, names, known, notes), checked)


def _image_set(root: Path, split: str) -> str:
    """The image set of a split: train may be `trainval`, and test may be absent."""
    known = image_sets(root)
    if split in known or not known:
        return split
    if split == "train" and "trainval" in known:
        return "trainval"
    message = f"{root / 'ImageSets' / 'Main' / split}.txt does not exist"
    if split == "test" and not _is_published(root):
        raise MissingSplit(f"{message}; write the names of its images there")
    if split == "val":
        raise MissingSplit(
            f"{message}; hold out samples of train with data.holdout=COUNT, or choose another "
            f"image set with set=NAME; known: {', '.join(known)}"
        )
    return split


def _is_published(root: Path) -> bool:
    return root.name in {f"VOC{year}" for year in YEARS}


def _classes(root: Path) -> tuple[str, ...]:
    if _is_published(root):
        return CLASSES
    names = read_image_set(root, _image_set(root, "train"))
    files = [root / "Annotations" / f"{name}.xml" for name in names]
    found = {thing.name for file in files if file.is_file() for thing in describe(file).things}
    if not found:
        raise UserError(
            f"{NAME}: the images of train in {root} have no objects, from which classes would be "
            "taken; list them with classes=[NAME, ...]"
        )
    return tuple(sorted(found))


def _annotations(
    name: str, root: Path, names: Sequence[str], classes: tuple[str, ...], notes: tuple[str, ...]
) -> Annotations:
    described = [describe(root / "Annotations" / f"{name}.xml") for name in names]
    things = [thing for content in described for thing in content.things]
    counts = [len(content.things) for content in described]
    index = {kind: i for i, kind in enumerate(classes)}
    # sorted, so that of a.jpg and a.png the first is taken
    files = {Path(file).stem: file for file in sorted(list_images(root, "JPEGImages"))[::-1]}
    return Annotations(
        name=name,
        root=root,
        paths=[files.get(name, f"JPEGImages/{name}.jpg") for name in names],
        shapes=np.array([content.shape for content in described], np.int64).reshape(-1, 2),
        boxes=np.array([thing.box for thing in things], np.float64).reshape(-1, 4),
        labels=np.array([index.get(thing.name, -1) for thing in things], np.int64),
        image=np.arange(len(names)).repeat(counts),
        classes=classes,
        place=lambda i: things[i].place,
        label=lambda i: repr(things[i].name),
        remedy="correct the names of these objects, or list all with classes=[NAME, ...]",
        difficult=np.array([thing.difficult for thing in things], bool),
        notes=notes,
    )


def describe(file: Path) -> Description:
    """The objects of an annotation file.

    Coordinates of VOC count pixels from 1 and include the last one: x1 and y1 become one less.
    """
    annotation = read_annotation(file, _REMEDY)
    shape = tuple(_side(file, annotation.findtext(f"size/{n}")) for n in ("height", "width"))
    return Description((shape[0], shape[1]), list(_things(file, annotation)))


def _side(file: Path, text: str | None) -> int:
    if not (text or "").strip():
        return 0
    side = _number(f"{file}: height and width of <size>", text)
    if not 0 <= side < 2**31 or side != int(side):
        raise UserError(
            f"{file}: height and width of <size> must be whole numbers, got {quote(text)}; "
            f"{_REMEDY}"
        )
    return int(side)


def _things(file: Path, annotation: ElementTree.Element) -> Iterator[Thing]:
    for number, thing in enumerate(annotation.findall("object"), 1):
        name, place = class_of(file, thing), f"{file}, object {number}"
        corners = [_number(f"{place}: {c}", thing.findtext(f"bndbox/{c}")) for c in _CORNERS]
        x1, y1, x2, y2 = corners
        yield Thing(place, name, (x1 - 1, y1 - 1, x2, y2), is_difficult(thing))


def _number(what: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{what} must be a number, got {quote(text)}; {_REMEDY}") from None

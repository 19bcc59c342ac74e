"""Where the instances file and the images of a split are: COCO's own layout, and exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stillhouse.data.formats.coco import first_folder, other_year
from stillhouse.data.problems import MissingSplit, check_choice
from stillhouse.errors import UserError

_PARTS = {"train": "train", "test": "val"}  # the annotations of COCO's test set are not public
_FOLDERS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def find_files(
    name: str, root: Path, split: str, year: int, annotations: str, images: str
) -> tuple[Path, Path]:
    """The instances file of a split of the data set `name`, and the folder of its images.

    COCO's own: annotations/instances_<part><year>.json with <part><year> or images/<part><year>.
    Exports: <split>/_annotations.coco.json beside the images, and
    annotations/instances_<split>.json with images/<split>, <split> or images; val may be `valid`.
    """
    check_choice("split", split, tuple(_FOLDERS))
    if annotations:
        file = root / annotations.replace("{split}", split)
        return file, _images(name, root, split, images, (file.parent,))
    published = _published(root, year)
    if published or not any(found.is_file() for part in _FOLDERS for found, _ in _own(root, part)):
        return _of_coco(name, root, split, year, images)
    return _of_export(name, root, split, images)


def _images(name: str, root: Path, split: str, images: str, otherwise: tuple[Path, ...]) -> Path:
    return first_folder(name, (root / images.replace("{split}", split),) if images else otherwise)


def _published(root: Path, year: int) -> bool:
    files = (root / "annotations" / f"instances_{part}{year}.json" for part in _PARTS.values())
    return any(file.is_file() for file in files)


def _of_coco(name: str, root: Path, split: str, year: int, images: str) -> tuple[Path, Path]:
    if split not in _PARTS:
        raise UserError(
            f"{name}: COCO has no {split} split, as its val images are `test`; hold out samples of "
            "train with data.holdout=COUNT"
        )
    part = f"{_PARTS[split]}{year}"
    file = root / "annotations" / f"instances_{part}.json"
    other_year(file, year, (2014, 2017))
    if not file.is_file():
        raise UserError(
            f"{file} does not exist; put the annotations there, or name a file below {root} with "
            "annotations=FILE"
        )
    return file, _images(name, root, split, images, (root / part, root / "images" / part))


def _of_export(name: str, root: Path, split: str, images: str) -> tuple[Path, Path]:
    for file, places in _own(root, split):
        if file.is_file():
            return file, _images(name, root, split, images, places)
    message = f"{name}: {root} has no annotations of {split}; put them there"
    if split == "val":
        message += ", or hold out samples of train with data.holdout=COUNT"
    raise MissingSplit(message)


def _own(root: Path, split: str) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """The places where exports may put a split, each with those of its images."""
    for part in _FOLDERS[split]:
        yield root / part / "_annotations.coco.json", (root / part,)
        places = (root / "images" / part, root / part, root / "images")
        yield root / "annotations" / f"instances_{part}.json", places

"""Cityscapes, and data sets of one's own in its layout, as masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.batches import IGNORE
from stillhouse.data.images import find_missing, list_images
from stillhouse.data.semantic.build import MaskFiles, build_source
from stillhouse.data.semantic.places import find_part, find_root
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import MaskSource
from stillhouse.data.semantic.values import ClassTable
from stillhouse.errors import UserError

NAME = "cityscapes/semantic"
# the ids of the classes that are trained, in the order of their train ids
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
IDS = 34

_PARTS = {"train": "train", "test": "val"}  # the masks of its test images are not public
_IMAGES, _MASKS = "leftImg8bit", "gtFine"
_SUFFIX = f"_{_IMAGES}.png"
_OF_IDS, _OF_TRAIN_IDS = "labelIds", "labelTrainIds"


def read_cityscapes(path: Path, split: str, *, part: str = "", **policy: Any) -> MaskSource:
    """The images of a split, sorted by city and name, with the 19 classes that are trained.

    Test is the `val` folder, whose masks are public; `part` names another folder. Masks of ids are
    taken, else those of train ids. `policy` has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root, images = find_frames(NAME, path, split, part)
    masks = [mask_of_frame(image, _OF_IDS) for image in images]
    others = [mask_of_frame(image, _OF_TRAIN_IDS) for image in images]
    trained = bool(find_missing(root, masks).all() and not find_missing(root, others).all())
    return build_source(
        MaskFiles(
            f"{NAME}/{split}",
            root,
            images,
            others if trained else masks,
            tuple(CLASSES.values()),
            train_ids() if trained else label_ids(),
        ),
        checked,
    )


def find_frames(name: str, path: Path, split: str, part: str) -> tuple[Path, list[str]]:
    """The root of the data set and the images of a split, or of the folder `part`, sorted."""
    root = find_root(name, path, _IMAGES, "cityscapes", "Cityscapes")
    folder = find_part(name, split, part, _PARTS)
    images = sorted(p for p in list_images(root, f"{_IMAGES}/{folder}") if p.endswith(_SUFFIX))
    if images:
        return root, images
    raise UserError(f"{name}: {root / _IMAGES / folder} has no images *{_SUFFIX}; put them there")


def mask_of_frame(image: str, kind: str) -> str:
    """Where the mask of an image is: `kind` is labelIds, labelTrainIds or instanceIds."""
    stem = image.removeprefix(f"{_IMAGES}/").removesuffix(_SUFFIX)
    return f"{_MASKS}/{stem}_{_MASKS}_{kind}.png"


def label_ids() -> ClassTable:
    """The class of each id; those that are not trained are ignored."""
    ignored = dict.fromkeys((*range(IDS), IGNORE), IGNORE)
    return ClassTable(ignored | {number: i for i, number in enumerate(CLASSES)})


def train_ids() -> ClassTable:
    """Train ids are classes, and 255 is ignored."""
    return ClassTable({**{i: i for i in range(len(CLASSES))}, IGNORE: IGNORE})

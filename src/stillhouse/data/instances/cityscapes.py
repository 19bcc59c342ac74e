"""Cityscapes, and data sets of one's own in its layout, as objects with masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.batches import IGNORE
from stillhouse.data.instances.mask_files import (
    InstanceSource,
    InstanceTable,
    Meaning,
    build_instances,
    distinct_values,
)
from stillhouse.data.objects.annotations import IntArray
from stillhouse.data.semantic.build import MaskFiles
from stillhouse.data.semantic.cityscapes import CLASSES, IDS, find_frames, mask_of_frame
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.values import UNKNOWN, ClassArray, ValueArray, read_values

NAME = "cityscapes/instances"
FIRST = 24  # the first id of the classes with instances, which are also trained
THINGS = {number: name for number, name in CLASSES.items() if number >= FIRST}

_STEP = 1000  # a value from here on is the id of a class times 1000, and the number of the object


@dataclass(frozen=True)
class CityTable:
    """The values of `instanceIds`: id * 1000 + number, or the id alone for a group."""

    @property
    def recipe(self) -> Mapping[str, object]:
        """All that it says of values, for digests."""
        return {"values": sorted(THINGS)}

    def read(self, path: Path) -> ValueArray:
        """The values of a mask file: -> (H, W)."""
        return read_values(path, colours=False)

    def classes_in(self, path: Path) -> ClassArray:
        """The class of each object of a mask file: -> (K,)."""
        return self.find(path, distinct_values(self.read(path))).labels.astype(np.int16)

    def find(self, path: Path, values: IntArray) -> Meaning:
        """The meaning of some values of any mask file: (K,) -> (K,) each."""
        classes = np.full(IDS + 1, IGNORE)
        classes[list(THINGS)] = np.arange(len(THINGS))
        classes[IDS] = UNKNOWN  # stands for all that follow
        group = values < _STEP
        labels = classes[np.where(group, values, values // _STEP).clip(max=IDS)]
        return Meaning(labels, group)


def read_cityscapes(path: Path, split: str, *, part: str = "", **policy: Any) -> InstanceSource:
    """The images of a split, sorted by city and name, with the objects of 8 classes.

    Groups of objects, which have no number, are crowds. Test is the `val` folder, whose masks are
    public; `part` names another folder. `policy` has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root, images = find_frames(NAME, path, split, part)
    masks = [mask_of_frame(image, "instanceIds") for image in images]
    classes, table = tuple(THINGS.values()), CityTable()
    files = MaskFiles[InstanceTable](f"{NAME}/{split}", root, images, masks, classes, table)
    return build_instances(files, checked)

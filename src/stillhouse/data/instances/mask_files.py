"""A source of image files with one mask file each, whose values number the objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import IGNORE, Objects
from stillhouse.data.images import read_image
from stillhouse.data.instances.masked import masked_objects
from stillhouse.data.objects.annotations import IntArray
from stillhouse.data.problems import BoolArray, Problem
from stillhouse.data.semantic.build import MaskFiles, usable_pairs
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import fingerprint_of_pairs, matching_image
from stillhouse.data.semantic.values import UNKNOWN, MaskTable, ValueArray
from stillhouse.data.source import Sample, fingerprint_of_recipe
from stillhouse.errors import UserError

_FEW = 1 << 16  # values up to which all are counted
_EMPTY = Problem("empty", "masks have no objects", "annotate them, keep them with empty='keep'")


class Meaning(NamedTuple):
    """What K values of a mask stand for."""

    labels: IntArray  # (K,) class, IGNORE for what is no object, UNKNOWN for what should not be
    crowd: BoolArray  # (K,)


class InstanceTable(MaskTable, Protocol):
    """What the values of mask files stand for: an object each."""

    def find(self, path: Path, values: IntArray) -> Meaning:
        """The meaning of some values other than 0 of a mask file: (K,) -> (K,) each."""
        ...


@dataclass(frozen=True, eq=False)
class InstanceSource:
    """Image files with their masks, both decoded on access.

    Boxes and areas are those of the masks. An image without a mask has no target.
    """

    root: Path
    images: tuple[str, ...]  # relative to the root, with slashes
    masks: tuple[str | None, ...]  # likewise; None for an image without labels
    table: InstanceTable
    classes: tuple[str, ...]
    name: str
    presence: Tensor  # (N, classes) bool: the classes in each mask, none where it was not read
    unknown: str = "fail"  # what is done about values that are no object
    notes: tuple[str, ...] = ()  # what was skipped or ignored, one sentence each
    positions: ClassVar[bool] = True

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, paths and sizes of the files, and of the meaning of values."""
        files = fingerprint_of_pairs(self.root, self.images, self.masks, self.classes)
        return fingerprint_of_recipe({"files": files, "unknown": self.unknown, **self.table.recipe})

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path, mask = self.root / self.images[index], self.masks[index]
        if mask is None:
            return Sample(read_image(path), None, index)
        values = self.table.read(self.root / mask)
        image = matching_image(path, self.root / mask, values.shape)
        return Sample(image, self._objects(self.root / mask, values), index)

    def _objects(self, path: Path, values: ValueArray) -> Objects:
        numbers = distinct_values(values)
        labels, crowd = self.table.find(path, numbers)
        wrong = numbers[labels == UNKNOWN]
        if self.unknown != "ignore" and len(wrong):
            row, column = np.argwhere(values == wrong[0])[0]
            raise UserError(
                f"{path} has the value {wrong[0]} in row {row}, column {column}, which is no "
                "object; correct it, or ignore such pixels with unknown='ignore'"
            )
        kept = (labels != UNKNOWN) & (labels != IGNORE)
        masks = values == numbers[kept, None, None].astype(values.dtype)
        parts = (torch.from_numpy(part) for part in (masks, labels[kept], crowd[kept]))
        return masked_objects(*parts)


def build_instances(found: MaskFiles[InstanceTable], policy: MaskPolicy) -> InstanceSource:
    """The source of these files, without what the policy skips.

    Raises a UserError for a problem where the policy is to fail, or if no image is left.
    """
    pairs = usable_pairs(found, policy, _EMPTY)
    return InstanceSource(
        found.root,
        pairs.images,
        pairs.masks,
        found.table,
        found.classes,
        found.name,
        pairs.presence,
        "ignore" if policy.unknown == "ignore" else "fail",
        pairs.notes,
    )


def distinct_values(values: ValueArray) -> IntArray:
    """The values of a mask other than 0, in their order: (H, W) -> (K,)."""
    if values.size and values.max() < _FEW:  # without sorting millions of pixels
        found = np.flatnonzero(np.bincount(values.ravel()))
    else:
        found = np.unique(values)
    objects: IntArray = found[found != 0].astype(np.int64)
    return objects

"""A source of image files with a mask each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from stillhouse.data.images import file_size, read_image
from stillhouse.data.semantic.values import ClassTable, read_mask
from stillhouse.data.source import Sample, fingerprint_of_files, fingerprint_of_recipe
from stillhouse.errors import UserError


class Mismatch(UserError):
    """A mask has another size than its image."""


@dataclass(frozen=True, eq=False)
class MaskSource:
    """Image files with their masks, both decoded on access.

    A mask is (H, W) uint8, 255 for ignored pixels. An image without a mask has no target.
    """

    root: Path
    images: tuple[str, ...]  # relative to the root, with slashes
    masks: tuple[str | None, ...]  # likewise; None for an image without labels
    table: ClassTable
    classes: tuple[str, ...]
    name: str
    presence: Tensor  # (N, classes) bool: the classes in each mask, none where it was not read
    unknown: str = "fail"  # what is done about values that are no class
    notes: tuple[str, ...] = ()  # what was skipped or ignored, one sentence each
    positions: ClassVar[bool] = True

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, paths and sizes of the files, and of the classes of values."""
        # Keys are indices into the list, so the same files in another order are other data.
        paths = [path for pair in zip(self.images, self.masks, strict=True) for path in pair]
        files: list[tuple[str, int, int | list[int]]] = [
            (f"{i:012d}/{path}", file_size(self.root / path), [])
            for i, path in enumerate(paths)
            if path is not None
        ]
        return fingerprint_of_recipe(
            {
                "files": fingerprint_of_files(files, self.classes),
                "values": sorted(self.table.classes.items()),
                "colours": self.table.colours,
                "unknown": self.unknown,
            }
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path, mask = self.root / self.images[index], self.masks[index]
        if mask is None:
            return Sample(read_image(path), None, index)
        return Sample(*read_pair(path, self.root / mask, self.table, self.unknown), index)


def read_pair(image: Path, mask: Path, table: ClassTable, unknown: str) -> tuple[Tensor, Tensor]:
    """An image in the orientation of its mask, and the mask: -> (3, H, W), (H, W) uint8.

    The image is upright if that has the size of the mask, else as stored. Raises Mismatch if
    neither has it.
    """
    classes = torch.from_numpy(read_mask(mask, table, unknown))
    upright = read_image(image)
    if upright.shape[1:] == classes.shape:
        return upright, classes
    stored = read_image(image, upright=False)
    if stored.shape[1:] == classes.shape:
        return stored, classes
    found, wanted = (f"{height} x {width}" for height, width in (classes.shape, upright.shape[1:]))
    raise Mismatch(
        f"{mask} has {found} pixels, but its image {image} has {wanted}; restore the mask of this "
        "image, or skip such images with mismatched='skip'"
    )

"""A source of image files with a mask each."""

from __future__ import annotations

from collections.abc import Sequence
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
        return fingerprint_of_recipe(
            {
                "files": fingerprint_of_pairs(self.root, self.images, self.masks, self.classes),
                "unknown": self.unknown,
                **self.table.recipe,
            }
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path, mask = self.root / self.images[index], self.masks[index]
        if mask is None:
            return Sample(read_image(path), None, index)
        return Sample(*read_pair(path, self.root / mask, self.table, self.unknown), index)


def fingerprint_of_pairs(
    root: Path, images: Sequence[str], masks: Sequence[str | None], classes: Sequence[str]
) -> str:
    """A digest of the order, paths and sizes of images and masks, and of the classes."""
    # Keys are indices into the list, so the same files in another order are other data.
    paths = [path for pair in zip(images, masks, strict=True) for path in pair]
    files: list[tuple[str, int, int | list[int]]] = [
        (f"{i:012d}/{path}", file_size(root / path), [])
        for i, path in enumerate(paths)
        if path is not None
    ]
    return fingerprint_of_files(files, classes)


def read_pair(image: Path, mask: Path, table: ClassTable, unknown: str) -> tuple[Tensor, Tensor]:
    """An image in the orientation of its mask, and the mask: -> (3, H, W), (H, W) uint8."""
    classes = torch.from_numpy(read_mask(mask, table, unknown))
    return matching_image(image, mask, tuple(classes.shape)), classes


def matching_image(image: Path, mask: Path, shape: tuple[int, ...]) -> Tensor:
    """An image in the orientation of its mask, whose height and width are known: -> (3, H, W).

    The image is upright if that has the size of the mask, else as stored. Raises Mismatch if
    neither has it.
    """
    upright = read_image(image)
    if upright.shape[1:] == shape:
        return upright
    stored = read_image(image, upright=False)
    if stored.shape[1:] == shape:
        return stored
    found, wanted = (f"{height} x {width}" for height, width in (shape, upright.shape[1:]))
    raise Mismatch(
        f"{mask} has {found} pixels, but its image {image} has {wanted}; restore the mask of this "
        "image, or skip such images with mismatched='skip'"
    )

"""A source of image files with objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.images import file_size, read_image
from stillhouse.data.source import Sample, fingerprint_of_files, fingerprint_of_recipe
from stillhouse.data.targets import target_at, tensor_digest
from stillhouse.errors import UserError


@dataclass(frozen=True, eq=False)
class ObjectSource:
    """Image files with their objects, decoded on access.

    Boxes refer to the images as they are returned. Raises a UserError where a decoded image does
    not have the annotated shape.
    """

    root: Path
    paths: tuple[str, ...]  # relative to the root, with slashes
    shapes: Tensor  # (N, 2) int64: height and width
    targets: Objects  # of all N images
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()  # what was skipped or changed, one sentence each

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, paths, sizes, shapes and objects of the files."""
        # Keys are indices into the list, so the same files in another order are other data.
        files = (
            (f"{i:012d}/{path}", file_size(self.root / path), shape)
            for i, (path, shape) in enumerate(zip(self.paths, self.shapes.tolist(), strict=True))
        )
        objects = {name: tensor_digest(part) for name, part in self.targets.tensors().items()}
        return fingerprint_of_recipe(
            {"files": fingerprint_of_files(files, self.classes), "objects": objects}
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        image = read_annotated(self.root / self.paths[index], self.shapes[index].tolist())
        return Sample(image, target_at(self.targets, index), index)


def read_annotated(path: Path, shape: list[int]) -> Tensor:
    """The image in a file in the orientation of its annotated height and width: -> (3, H, W).

    It is upright if that has the annotated shape, which annotation tools show, else as stored.
    Raises a UserError if neither has it.
    """
    upright = read_image(path)
    if list(upright.shape[1:]) == shape:
        return upright
    stored = read_image(path, upright=False)
    if list(stored.shape[1:]) == shape:
        return stored
    found, annotated = (f"{height} x {width}" for height, width in (upright.shape[1:], shape))
    raise UserError(
        f"{path} has {found} pixels, but its boxes were annotated on {annotated}; restore the "
        "image that was annotated, or annotate this one"
    )

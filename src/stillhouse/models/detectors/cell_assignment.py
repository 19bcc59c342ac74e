"""Which object each cell of a grid is trained on, by the centre of mass of its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.assign import BACKGROUND


@dataclass(frozen=True, eq=False)
class CellAssignment:
    """The object of each cell, for N images and P cells, and the masks of M objects."""

    index: Tensor  # (N, P) int64: object or BACKGROUND
    labels: Tensor  # (N, P) int64: class, or -1
    rows: Tensor  # (R, 2) int64: image and cell of all cells with an object, in their order
    masks: Tensor  # (M, h, w) bool: the objects at the size of predicted masks

    @property
    def positive(self) -> Tensor:
        """Which cells have an object: -> (N, P) bool."""
        return self.index >= 0

    @property
    def counted(self) -> Tensor:
        """Which cells count in the loss of classes, all of them: -> (N, P) bool."""
        return torch.ones_like(self.index, dtype=torch.bool)

    @property
    def positives(self) -> Tensor:
        """The number of cells with an object in each image: -> (N,) int64."""
        return self.positive.sum(1)

    @property
    def mass(self) -> Tensor:
        """The sum over images of max(positives, 1): -> ()."""
        return self.positives.clamp(min=1).sum()

    @property
    def row_masks(self) -> Tensor:
        """The mask of the object of each row: -> (R, h, w) bool."""
        return self.masks[self.index[self.rows[:, 0], self.rows[:, 1]]]


def assign_cells(
    objects: Objects,
    masks: Tensor,
    grids: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    region: float,
) -> Tensor:
    """The object of each cell of S x S grids over the images: masks (M, H, W) bool -> (N, P).

    An object belongs to the grids in whose range of sizes the square root of its box's area lies,
    both ends included. There it has the cells that touch its centre region: a box around the centre
    of mass of its mask with sides of `region` times those of its box, and at most one ring of cells
    around the centre of mass. A cell of several objects goes to the last of them. Objects that are
    ignored, or whose mask is empty, have none.
    """
    height, width = masks.shape[-2:]
    boxes = upcast(objects.boxes)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    scale = sides.prod(1).sqrt()
    known = masks.flatten(1).any(1) & ~objects.ignored
    image_sides = sides.new_tensor([width, height])
    middle = centres_of_mass(masks).to(boxes.dtype) / image_sides
    half = region / 2 * sides / image_sides
    found = []
    for grid, (low, high) in zip(grids, ranges, strict=True):
        fits = known & (scale >= low) & (scale <= high)
        found.append(cells_around(middle, half, grid) & fits[:, None])
    return last_objects(torch.cat(found, 1), objects)


def centres_of_mass(masks: Tensor) -> Tensor:
    """The mean centre x, y of the pixels of each mask, 0 without any: (M, H, W) bool -> (M, 2)."""
    found = []
    for line in (masks.sum(1), masks.sum(2)):
        place = torch.arange(line.shape[1], device=line.device) + 0.5
        found.append((line * place).sum(1) / line.sum(1).clamp(min=1))
    return torch.stack(found, 1)


def cells_around(middle: Tensor, half: Tensor, grid: int) -> Tensor:
    """The cells that a centre region touches, within one of its middle: (M, 2) twice -> (M, S S).

    `middle` and `half` sides are fractions of the image's width and height.
    """
    own = (middle * grid).floor()
    low = torch.maximum(((middle - half) * grid).floor(), own - 1)
    high = torch.minimum(((middle + half) * grid).floor(), own + 1)
    place = torch.arange(grid, device=middle.device)
    inside = (place >= low[..., None]) & (place <= high[..., None])
    return (inside[:, 1, :, None] & inside[:, 0, None, :]).flatten(1)


def last_objects(hits: Tensor, objects: Objects) -> Tensor:
    """The last object of each image's cells, BACKGROUND without: (M, P) bool -> (N, P) int64."""
    count, cells = hits.shape
    number = torch.arange(count, device=hits.device)[:, None].expand(count, cells)
    index = number.new_full((objects.images, cells), BACKGROUND)
    image = objects.image[:, None].expand(count, cells)
    return index.scatter_reduce(0, image, number.where(hits, BACKGROUND), "amax")


def cell_labels(index: Tensor, objects: Objects) -> Tensor:
    """The class of each cell, -1 for background: (N, P) -> (N, P)."""
    if not len(objects.labels):
        return torch.full_like(index, -1)
    return objects.labels[index.clamp(min=0)].where(index >= 0, -1)


def resize_object_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks at another size: bilinear, from one half on: (M, H, W) bool -> (M, *size) bool."""
    shares = F.interpolate(masks[:, None].float(), size, mode="bilinear", align_corners=False)
    return shares[:, 0] >= 0.5

"""What a SOLO network returns: classes and mask kernels of the cells of grids, as one value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.models.detectors.cell_assignment import CellAssignment
from stillhouse.models.detectors.output import Suppression
from stillhouse.types import Terms


@dataclass(frozen=True, eq=False)
class CellMasks:
    """Raw predictions for N images, P cells and C classes (SOLOv2, Wang et al., 2020).

    The cells are those of all grids, grid by grid and row by row. A grid of S x S cells covers the
    image, whatever its shape. The mask of a cell is the map of mask features, convolved with the
    kernel that the network predicts for the cell.
    """

    scores: Tensor  # (N, P, C) logits
    kernels: Tensor  # (N, P, E k k) of k x k convolutions
    features: Tensor  # (N, E, h, w)
    grids: tuple[int, ...]  # cells per side
    strides: tuple[int, ...]  # of the map that each grid is read from
    size: tuple[int, int]  # height and width of the images
    family: CellFamily

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.scores.shape[-1]

    @property
    def counts(self) -> list[int]:
        """The number of cells of each grid."""
        return [grid * grid for grid in self.grids]

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the masks of cells."""
        return self.features.shape[-2], self.features.shape[-1]

    def rows(self, index: Tensor) -> CellMasks:
        """The predictions for some of the images."""
        return replace(
            self,
            scores=self.scores[index],
            kernels=self.kernels[index],
            features=self.features[index],
        )

    def select(self, index: Tensor) -> CellMasks:
        """Some classes, in the order of their indices: (K,) int64."""
        return replace(self, scores=self.scores.index_select(-1, index))

    def assign(self, objects: Objects) -> CellAssignment:
        """The object of each cell."""
        return self.family.assign(self, objects)

    def terms(self, assigned: CellAssignment) -> Terms:
        """The loss terms of the family."""
        return self.family.terms(self, assigned)

    def class_logits(self) -> Tensor:
        """The highest logit of each class in each image: -> (N, C)."""
        return self.scores.amax(1)

    def segment(self, index: int, size: tuple[int, int], options: Suppression) -> Objects:
        """The instances of one image, as `Instances` says."""
        return self.family.segment(self, index, size, options)

    def mask_logits(self, rows: Tensor) -> Tensor:
        """The masks of cells: (R, 2) int64 image and cell, sorted by image -> (R, h, w) logits."""
        counts = rows[:, 0].bincount(minlength=len(self)).tolist()
        parts = enumerate(rows[:, 1].split(counts))
        return torch.cat([self.features[:0, 0], *(self.masks_of(i, cells) for i, cells in parts)])

    def masks_of(self, index: int, cells: Tensor) -> Tensor:
        """The masks of cells of one image: (R,) int64 -> (R, h, w) logits."""
        features, kernels = self.features[index], self.kernels[index, cells]
        side = isqrt(kernels.shape[1] // len(features))
        # of one pixel, the map itself
        columns = features if side == 1 else F.unfold(features[None], side, padding=side // 2)[0]
        logits: Tensor = (kernels @ columns.flatten(1)).unflatten(1, self.mask_size)
        return logits

    def differences(self, other: CellMasks) -> list[str]:
        """What differs from other predictions, as clauses; empty if they are on the same grids."""
        if len(self.grids) != len(other.grids):
            return [f"{len(self.grids)} grids and {len(other.grids)}"]
        found = [
            f"grid {number}: {mine} x {mine} cells and {theirs} x {theirs}"
            for number, (mine, theirs) in enumerate(zip(self.grids, other.grids, strict=True))
            if mine != theirs
        ]
        if self.mask_size != other.mask_size:
            sizes = ("{} x {}".format(*out.mask_size) for out in (self, other))
            found.append(f"masks of {' and '.join(sizes)} pixels")
        return found


class CellFamily(Protocol):
    """A kind of network with a mask for each cell: its assignment, losses and instances."""

    @property
    def suppression(self) -> Suppression:
        """The options of suppression."""
        ...

    def assign(self, out: CellMasks, objects: Objects) -> CellAssignment:
        """The object of each cell."""
        ...

    def terms(self, out: CellMasks, assigned: CellAssignment) -> Terms:
        """The loss terms of one batch."""
        ...

    def segment(
        self, out: CellMasks, index: int, size: tuple[int, int], options: Suppression
    ) -> Objects:
        """The instances of one image."""
        ...

"""Priors: the anchors or points that dense predictions belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Priors:
    """P priors, level by level, row by row, and cell by cell; `each` priors belong to one cell.

    A point is the square of one stride around it.
    """

    boxes: Tensor  # (P, 4) x1, y1, x2, y2 in pixels
    stride: Tensor  # (P,) pixels, of the same dtype
    sizes: tuple[tuple[int, int], ...]  # height and width of each level, in cells
    strides: tuple[int, ...]  # of each level
    each: int = 1

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def counts(self) -> list[int]:
        """The number of priors of each level."""
        return [height * width * self.each for height, width in self.sizes]

    @property
    def centres(self) -> Tensor:
        """The centre of each prior: -> (P, 2) x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def differences(self, other: Priors) -> list[str]:
        """What differs from other priors, a clause per level; empty if they are on one grid."""
        found = []
        if len(self.sizes) != len(other.sizes):
            return [f"{len(self.sizes)} levels and {len(other.sizes)}"]
        for level, (mine, theirs) in enumerate(zip(self.layout, other.layout, strict=True)):
            names = ("stride", "cells", "priors per cell")
            found += [
                f"level {level}: {name} {one} and {two}"
                for name, one, two in zip(names, mine, theirs, strict=True)
                if one != two
            ]
        return found

    @property
    def layout(self) -> list[tuple[int, tuple[int, int], int]]:
        """Stride, size and priors per cell of each level."""
        return [(s, size, self.each) for s, size in zip(self.strides, self.sizes, strict=True)]


@dataclass(frozen=True)
class PointGrid:
    """One point per cell, at `offset` strides from the corner of its cell."""

    offset: float = 0.5

    @property
    def each(self) -> int:
        """Priors per cell."""
        return 1

    def templates(self, stride: int) -> Tensor:
        """The priors of the cell at 0, 0: -> (each, 4)."""
        centre = self.offset * stride
        low, high = centre - stride / 2, centre + stride / 2
        return torch.tensor([[low, low, high, high]])


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors around the corner of each cell, of several scales and ratios of height to width.

    An anchor of scale s and ratio r has the area (s * stride)^2; ratios vary first.
    """

    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (1.0,)

    @property
    def each(self) -> int:
        """Priors per cell."""
        return len(self.scales) * len(self.ratios)

    def templates(self, stride: int) -> Tensor:
        """The priors of the cell at 0, 0: -> (each, 4)."""
        sides = [
            (stride * scale / ratio**0.5, stride * scale * ratio**0.5)
            for ratio in self.ratios
            for scale in self.scales
        ]
        half = torch.tensor(sides, dtype=torch.float64) / 2
        return torch.cat([-half, half], 1).float()


Grid = PointGrid | AnchorGrid


def make_priors(
    grid: Grid, sizes: Sequence[tuple[int, int]], strides: Sequence[int], like: Tensor
) -> Priors:
    """The priors of levels of these sizes, on the device of `like`, in float32 or its float64."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    boxes, stride = _laid_out(grid, tuple(sizes), tuple(strides), like.device, dtype)
    return Priors(boxes, stride, tuple(sizes), tuple(strides), grid.each)


@lru_cache(maxsize=16)
def _laid_out(
    grid: Grid,
    sizes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    boxes, stride = [], []
    with torch.inference_mode(False), torch.no_grad():
        for (height, width), step in zip(sizes, strides, strict=True):
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            corners = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) * step
            placed = (corners + grid.templates(step)).reshape(-1, 4)
            boxes.append(placed)
            stride.append(torch.full((len(placed),), float(step)))
        return torch.cat(boxes).to(device, dtype), torch.cat(stride).to(device, dtype)

"""The head of SOLOv2: classes and mask kernels of the cells of grids, and the mask features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.detectors.tower import Tower, flatten, init_head
from stillhouse.models.fpn import ConvNorm

COORDINATES = 2  # channels x and y


class CellOutput(NamedTuple):
    """The predictions of a head for the cells of all grids."""

    scores: Tensor  # (N, P, C)
    kernels: Tensor  # (N, P, E k k)
    features: Tensor  # (N, E, h, w)


class SOLOv2Head(nn.Module):
    """Two towers for S x S cells of some levels, and mask features of the first `mask_levels`.

    L x (N, before, H, W) -> CellOutput. Each of `grids` belongs to a level of `read`, by its index.
    The towers have `depth` convolutions of `width` channels with group norm; that of kernels reads
    the coordinates, too. Each cell has a convolution of `kernel` x `kernel` over `mask_channels`
    mask features, without a bias.
    """

    def __init__(
        self,
        before: int,
        classes: int,
        grids: Sequence[int],
        read: Sequence[int],
        mask_levels: int,
        *,
        width: int = 512,
        depth: int = 4,
        kernel: int = 1,
        mask_width: int = 128,
        mask_channels: int = 256,
    ) -> None:
        super().__init__()
        options = {"width": width, "depth": depth, "kernel": kernel, "mask_width": mask_width}
        for name, value in {**options, "mask_channels": mask_channels}.items():
            if value < 1 or (name == "kernel" and value % 2 == 0):
                kind = "positive and odd" if name == "kernel" else "positive"
                raise UserError(f"`{name}` of the head must be {kind}, got {value}")
        self.grids, self.read, self.mask_levels = tuple(grids), tuple(read), mask_levels
        self.classes, self.kernel_width = classes, mask_channels * kernel**2
        self.class_tower = Tower(before, width, depth, norm=True)
        self.kernel_tower = Tower(before + COORDINATES, width, depth, norm=True)
        self.score = nn.Conv2d(width, classes, 3, padding=1)
        self.kernel = nn.Conv2d(width, self.kernel_width, 3, padding=1)
        self.masks = MaskFeatures(before, mask_width, mask_channels, mask_levels)
        init_head(self, self.score)

    def forward(self, levels: Sequence[Tensor]) -> CellOutput:
        """The predictions for maps of all levels, the largest first."""
        features = self.masks(levels[: self.mask_levels])
        scores, kernels = [], []
        maps = resize_ends([levels[index] for index in self.read])
        for level, grid in zip(maps, self.grids, strict=True):
            cells = resize_bilinearly(with_coordinates(level), (grid, grid))
            kinds = self.class_tower(cells[:, :-COORDINATES])
            scores.append(flatten(self.score(kinds), self.classes))
            kernels.append(flatten(self.kernel(self.kernel_tower(cells)), self.kernel_width))
        return CellOutput(torch.cat(scores, 1), torch.cat(kernels, 1), features)


class MaskFeatures(nn.Module):
    """One map of several levels, at the size of the largest: L x (N, before, H, W) -> (N, E, H, W).

    A level has a convolution for each step to the largest one, or a single one, each followed by
    bilinear enlargement; their sum is projected. The smallest level has the coordinates beside it.
    """

    def __init__(self, before: int, width: int, channels: int, levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for level in range(levels):
            first = before + COORDINATES * (level == levels - 1)
            widths = [first, *[width] * max(0, level - 1)]
            self.levels.append(nn.ModuleList(Tower(given, width, 1, norm=True) for given in widths))
        self.last = nn.Sequential(ConvNorm(width, channels, 1, 1, norm=True), nn.ReLU())

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The features of the maps of all levels, the largest first."""
        maps = [*levels[:-1], with_coordinates(levels[-1])]
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        total: Tensor | None = None
        for number, (x, layers) in enumerate(zip(maps, self.levels, strict=True)):
            assert isinstance(layers, nn.ModuleList)
            larger = sizes[:number] or sizes[:1]
            for layer, size in zip(layers, reversed(larger), strict=True):
                x = resize_bilinearly(layer(x), size)
            total = x if total is None else total + x
        features: Tensor = self.last(total)
        return features


def with_coordinates(maps: Tensor) -> Tensor:
    """Maps with the coordinates of their places, -1 to 1: (N, C, H, W) -> (N, C + 2, H, W)."""
    height, width = maps.shape[-2:]
    y, x = (
        torch.linspace(-1, 1, side, device=maps.device, dtype=maps.dtype)
        for side in (height, width)
    )
    x, y = x.expand(height, width), y[:, None].expand(height, width)
    placed = torch.stack([x, y]).expand(maps.shape[0], COORDINATES, height, width)
    return torch.cat([maps, placed], 1)


def resize_ends(levels: Sequence[Tensor]) -> list[Tensor]:
    """Three levels or more, the first at the size of the second and the last at that of its larger.

    So the grids of SOLOv2 are read from maps of strides 8, 8, 16, 32 and 32.
    """
    if len(levels) < 3:
        return list(levels)
    first, *others, last = levels
    sizes = ((near.shape[-2], near.shape[-1]) for near in (others[0], others[-1]))
    ends = [
        resize_bilinearly(level, size) for level, size in zip((first, last), sizes, strict=True)
    ]
    return [ends[0], *others, ends[1]]


def strides_of_grids(strides: Sequence[int]) -> tuple[int, ...]:
    """The strides of maps that `resize_ends` gives."""
    if len(strides) < 3:
        return tuple(strides)
    return (strides[1], *strides[1:-1], strides[-2])


def resize_bilinearly(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation without aligned corners: (N, C, h, w) -> (N, C, *size)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)

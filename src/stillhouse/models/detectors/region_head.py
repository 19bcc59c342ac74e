"""Heads of two-stage detectors: pooled regions of the levels, and two fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.boxes import box_area
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.coding import UNIT, Deviations
from stillhouse.models.detectors.two_stage import Regions

FINEST = 56.0  # side of the regions from which on they are pooled from the level of stride 4


def pool_regions(
    levels: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, image: Tensor, side: int = 7
) -> Tensor:
    """RoIAlign at the level of each region's size (Lin et al., 2017): -> (R, C, side, side).

    A region of side s belongs to the level of stride 4 * 2^floor(log2(s / 56)), or to the nearest
    that there is. Samples are as many as the cells of the level in a bin.
    """
    from torchvision.ops import roi_align

    boxes = boxes.to(upcast(levels[0]).dtype)
    number = region_levels(boxes, strides)
    pooled = upcast(levels[0]).new_zeros(len(boxes), levels[0].shape[1], side, side)
    for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        place = (number == index).nonzero()[:, 0]
        given = torch.cat([image[place, None].to(boxes.dtype), boxes[place]], 1)
        part = roi_align(upcast(level), given, side, 1 / stride, sampling_ratio=0, aligned=True)
        pooled = pooled.index_copy(0, place, part)
    return pooled


def region_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """The index of the level that each region is pooled from: (R, 4) -> (R,) int64."""
    sides = box_area(boxes).clamp(min=0).sqrt()
    stride = 4 * 2 ** (sides / FINEST + 1e-6).log2().floor()
    known = torch.tensor(strides, device=boxes.device, dtype=boxes.dtype)
    return torch.searchsorted(known, stride.clamp(strides[0], strides[-1]))


class RegionHead(nn.Module):
    """Two fully connected layers with ReLU, class scores and boxes, for pooled regions.

    Regions are pooled to `side` by `side` cells. With `agnostic`, one box for all classes.
    """

    def __init__(
        self,
        before: int,
        classes: int,
        *,
        width: int = 1024,
        side: int = 7,
        agnostic: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("side", side)):
            if value < 1:
                raise UserError(f"`{name}` of the head must be positive, got {value}")
        self.side = side
        self.first = nn.Linear(before * side * side, width)
        self.second = nn.Linear(width, width)
        self.scores = nn.Linear(width, classes + 1)
        self.boxes = nn.Linear(width, 4 if agnostic else 4 * classes)
        for layer in (self.first, self.second):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer, deviation in ((self.scores, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(
        self, pooled: Tensor, boxes: Tensor, image: Tensor, deviations: Deviations = UNIT
    ) -> Regions:
        """(R, before, side, side), (R, 4), (R,) -> Regions."""
        x = F.relu(self.second(F.relu(self.first(pooled.flatten(1)))))
        deltas = self.boxes(x).unflatten(1, (-1, 4))
        return Regions(boxes, image, self.scores(x), deltas, deviations)

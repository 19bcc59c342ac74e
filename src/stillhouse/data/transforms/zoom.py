"""Geometric transforms for objects that zoom in and out, as in SSD: box_crop and expand."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.transforms.geometry import padding_value
from stillhouse.data.transforms.objects import Move, box_centres, cut
from stillhouse.spec import require, spec

ATTEMPTS = 50  # at a window, as in SSD
GREY = 114  # the value of pixels around images, near the mean of photographs


@spec
class BoxCrop:
    """With a probability, a random crop that shows an object (SSD, Liu et al., 2016).

    A least IoU is drawn from `overlaps`. Of 50 random windows, the first is taken that contains the
    centre of an object with at least this IoU of its box and the window; the image is left as it is
    if there is none. Objects whose centre is outside are dropped, and boxes are clipped. An image
    without objects is cropped to the first window.
    """

    probability: float = 6 / 7  # SSD draws from six overlaps and no crop
    overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    scale: tuple[float, float] = (0.3, 1.0)  # fraction of each side
    ratio: tuple[float, float] = (0.5, 2.0)  # width to height, in pixels
    kind: Literal["box_crop"] = "box_crop"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)
        valid = bool(self.overlaps) and all(0 <= overlap < 1 for overlap in self.overlaps)
        require(valid, "overlaps", "one or more numbers in [0, 1)", self.overlaps)
        require(
            0 < self.scale[0] <= self.scale[1] <= 1, "scale", "increasing in (0, 1]", self.scale
        )
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", "positive and increasing", self.ratio)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        return self.crop

    def crop(self, image: Tensor, *others: Any) -> Any:
        """An image, with its boxes and masks, cropped by torch's generator or left as it is."""
        from torchvision import tv_tensors

        chance, choice = torch.rand(2).tolist()
        windows = self.windows(*image.shape[-2:])  # drawn in any case: later draws do not change
        boxes = [part for part in others if isinstance(part, tv_tensors.BoundingBoxes)]
        if boxes:
            overlap = self.overlaps[int(choice * len(self.overlaps))]
            windows = windows[shows_object(windows, boxes[0].as_subclass(Tensor), overlap)]
        if chance >= self.probability or not len(windows):
            return [image, *others] if others else image
        left, top, right, bottom = windows[0].tolist()
        return cut(top, left, bottom - top, right - left)(image, *others)

    def windows(self, height: int, width: int) -> Tensor:
        """Random windows with a ratio in the range: -> (K, 4) int64 as x1, y1, x2, y2, K <= 50."""
        share, place = torch.rand(2, ATTEMPTS, 2)
        sides = torch.tensor([width, height])
        low, high = self.scale
        shapes = ((low + share * (high - low)) * sides).long().clamp(min=1)
        corners = (place * (sides - shapes + 1)).long()
        ratio = shapes[:, 0] / shapes[:, 1]
        valid = (ratio >= self.ratio[0]) & (ratio <= self.ratio[1])
        return torch.cat([corners, corners + shapes], 1)[valid]


def shows_object(windows: Tensor, boxes: Tensor, overlap: float) -> Tensor:
    """Whether windows contain the centre of a box with at least an IoU: (K, 4), (M, 4) -> (K,).

    All windows do if there are no boxes.
    """
    from torchvision.ops import box_iou

    if not len(boxes):
        return torch.ones(len(windows), dtype=torch.bool)
    centres = box_centres(boxes)
    inside = (centres >= windows[:, None, :2]) & (centres < windows[:, None, 2:])
    overlaps: Tensor = box_iou(windows.to(boxes.dtype), boxes)
    return (inside.all(2) & (overlaps >= overlap)).any(1)


@spec
class Expand:
    """With a probability, a random place on a larger grey canvas (SSD, Liu et al., 2016).

    Both sides of the canvas are those of the image times a random factor from 1 to `largest`.
    """

    probability: float = 0.5
    largest: float = 4.0
    grey: int = GREY
    kind: Literal["expand"] = "expand"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)
        require(self.largest >= 1, "largest", "at least 1", self.largest)
        require(0 <= self.grey <= 255, "grey", "in [0, 255]", self.grey)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        return self.expand

    def expand(self, image: Tensor, *others: Any) -> Any:
        """An image, with its boxes and masks, on its canvas or as it is, by torch's generator."""
        from torchvision.transforms.v2 import functional as F

        chance, factor, down, across = torch.rand(4).tolist()
        if chance >= self.probability:
            return [image, *others] if others else image
        height, width = image.shape[-2:]
        more = factor * (self.largest - 1)
        below, right = int(more * height), int(more * width)
        top, left = int(down * (below + 1)), int(across * (right + 1))
        padding = [left, top, right - left, below - top]
        fills = [self.grey] + [padding_value(other) for other in others]
        padded = [
            F.pad(part, padding, fill=fill)
            for part, fill in zip((image, *others), fills, strict=True)
        ]
        return padded if others else padded[0]

"""What is covered: a box of an image in black or noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.random import Draw
from stillhouse.spec import require, spec


@spec
class Cutout:
    """A black square anywhere, cut at the border (DeVries and Taylor, 2017).

    Its side is drawn from 0 to `size` of the image's shorter side, or `fixed` to it. Its `colour`
    may be drawn, too. The code of L2D does both.
    """

    size: float = 0.5
    fixed: bool = False
    colour: Literal["black", "random"] = "black"
    kind: Literal["cutout"] = "cutout"
    moves: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[True]] = True

    def __post_init__(self) -> None:
        require(0 <= self.size <= 1, "size", "in [0, 1], a fraction of the side", self.size)

    @property
    def draws(self) -> int:
        """Side, row and column, and a number for each of three channels."""
        return 3 if self.colour == "black" else 6

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        height, width = images.shape[-2:]
        largest = self.size * min(height, width) / 2
        reach = torch.full_like(draw(0), largest) if self.fixed else draw(0) * largest
        rows, columns = (
            (torch.arange(side, device=images.device) + 0.5 - draw(i)[:, None] * side).abs()
            < reach[:, None]
            for i, side in ((1, height), (2, width))
        )
        covered = rows[:, :, None] & columns[:, None, :]
        if self.colour == "black":
            return images.masked_fill(covered[:, None], 0)
        shades = [(draw(3 + channel % 3) * 256).byte() for channel in range(images.shape[1])]
        return torch.stack(shades, 1)[:, :, None, None].where(covered[:, None], images)


ATTEMPTS = 10  # to draw a box that fits


@spec
class Erasing:
    """A box of random pixels, or of black, with a probability (Zhong et al., 2020)."""

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)  # shares of the image
    ratio: tuple[float, float] = (0.3, 3.3)  # height to width
    mode: Literal["pixel", "black"] = "pixel"
    kind: Literal["erasing"] = "erasing"
    moves: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)
        require(0 < self.area[0] <= self.area[1] <= 1, "area", "increasing in (0, 1]", self.area)
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", "positive and increasing", self.ratio)

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> the same shape."""
        return self.erase

    def erase(self, image: Tensor) -> Tensor:
        """An image with a box in it, or as it was: (C, H, W) uint8 -> the same shape."""
        if float(torch.rand(())) >= self.probability:
            return image
        channels, height, width = image.shape
        for _ in range(ATTEMPTS):
            h, w = self.box(height, width)
            if h < height and w < width:
                break
        else:
            return image
        y, x = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
        changed = image.clone()
        content = torch.randint(256, (channels, h, w), dtype=image.dtype)
        changed[:, y : y + h, x : x + w] = content if self.mode == "pixel" else 0
        return changed

    def box(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a box, which may be larger than the image."""
        share, shape = torch.rand(2).tolist()
        area = (self.area[0] + share * (self.area[1] - self.area[0])) * height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = math.exp(low + shape * (high - low))
        return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))

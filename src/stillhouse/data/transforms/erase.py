"""Transforms that cover a box of an image."""

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
    """A square at a random position, clipped at the border (DeVries and Taylor, 2017).

    Its side is random up to `size` times the image's shorter side, or exactly that if `fixed`. Its
    `colour` is black or random. The code of L2D has `fixed` and a random colour.
    """

    size: float = 0.5
    fixed: bool = False
    colour: Literal["black", "random"] = "black"
    kind: Literal["cutout"] = "cutout"
    geometric: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[True]] = True

    def __post_init__(self) -> None:
        require(0 <= self.size <= 1, "size", "in [0, 1], a fraction of the side", self.size)

    @property
    def draws(self) -> int:
        """The number of draws: side, row, column, and three channels for a random colour."""
        return 3 if self.colour == "black" else 6

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        height, width = images.shape[-2:]
        largest = self.size * min(height, width) / 2
        # half of the side
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


ATTEMPTS = 10  # at a box that is smaller than the image


@spec
class Erasing:
    """With a probability, a box of random pixels or of black (Zhong et al., 2020)."""

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)  # fraction of the image
    ratio: tuple[float, float] = (0.3, 3.3)  # height to width
    mode: Literal["pixel", "black"] = "pixel"
    kind: Literal["erasing"] = "erasing"
    geometric: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)
        require(0 < self.area[0] <= self.area[1] <= 1, "area", "increasing in (0, 1]", self.area)
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", "positive and increasing", self.ratio)

    def single(self) -> Callable[[Tensor], Tensor]:
        """The function for one image: (C, H, W) uint8 -> the same shape."""
        return self.erase

    def erase(self, image: Tensor) -> Tensor:
        """The image with a box or unchanged, by torch's generator: (C, H, W) uint8."""
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
        """The height and width of a random box, which may be larger than the image."""
        share, shape = torch.rand(2).tolist()
        area = (self.area[0] + share * (self.area[1] - self.area[0])) * height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = math.exp(low + shape * (high - low))
        return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))

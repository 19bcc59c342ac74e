"""Geometric transforms for masks: a random scale, and a random crop of a fixed size."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.transforms.geometry import Interpolation, padding_value
from stillhouse.data.transforms.objects import Move, resize_parts
from stillhouse.data.transforms.zoom import GREY
from stillhouse.spec import require, spec


@spec
class RandomScale:
    """Resizes both sides by a random factor from `low` to `high`, in steps of `step`.

    With a `step` of 0 every factor between the two can be drawn.
    """

    low: float = 0.5
    high: float = 2.0
    step: float = 0.1
    interpolation: Interpolation = "bilinear"
    kind: Literal["random_scale"] = "random_scale"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(0 < self.low < float("inf"), "low", "positive", self.low)
        require(self.low <= self.high < float("inf"), "high", f"at least {self.low}", self.high)
        require(0 <= self.step < float("inf"), "step", "non-negative", self.step)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        return self.resize

    def resize(self, *parts: Any) -> Any:
        """An image, with its boxes and masks, resized alike; the factor by torch's generator."""
        factor = self.draw()
        height, width = (max(1, round(side * factor)) for side in parts[0].shape[-2:])
        return resize_parts(parts, height, width, self.interpolation)

    def draw(self) -> float:
        """One of the factors, by torch's generator."""
        if not self.step:
            return self.low + float(torch.rand(())) * (self.high - self.low)
        # 1e-9 for steps that have no exact float, such as 15 of 0.1
        steps = int((self.high - self.low) / self.step + 1e-9) + 1
        return self.low + self.step * int(torch.randint(steps, ()))


@spec
class RandomCrop:
    """A random crop of `size` pixels, or of [height, width].

    An image that is smaller is padded first, with grey at the right and bottom, where its mask is
    ignored.
    """

    size: int | tuple[int, int] = 512
    grey: int = GREY
    kind: Literal["random_crop"] = "random_crop"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(min(self.sides) >= 1, "size", "at least 1", self.size)
        require(0 <= self.grey <= 255, "grey", "in [0, 255]", self.grey)

    @property
    def sides(self) -> tuple[int, int]:
        """The height and width of the crop."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        return self.crop

    def crop(self, image: Tensor, *others: Any) -> Any:
        """An image, with its boxes and masks, in a window drawn by torch's generator."""
        from torchvision.transforms.v2 import functional as F

        parts = (image, *others)
        height, width = self.sides
        below, right = max(0, height - image.shape[-2]), max(0, width - image.shape[-1])
        if below or right:
            fills = [self.grey] + [padding_value(other) for other in others]
            padding = [0, 0, right, below]
            parts = tuple(
                F.pad(part, padding, fill=fill) for part, fill in zip(parts, fills, strict=True)
            )
        down, across = torch.rand(2).tolist()
        top = int(down * (parts[0].shape[-2] - height + 1))
        left = int(across * (parts[0].shape[-1] - width + 1))
        cropped = [F.crop(part, top, left, height, width) for part in parts]
        return cropped if others else cropped[0]

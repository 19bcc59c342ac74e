"""Geometric transforms, which change boxes and masks with the image: crop, flip and resize."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.random import Draw
from stillhouse.data.targets import IGNORE
from stillhouse.data.transforms.objects import Move
from stillhouse.spec import require, spec

Interpolation = Literal["bilinear", "bicubic"]


def _padding_value(part: Tensor) -> int:
    """The value of padding: `IGNORE` for class masks, else 0."""
    return 0 if part.dtype == torch.bool or part.is_floating_point() else IGNORE


@spec
class Crop:
    """A random crop of the image's own size, after padding with black."""

    padding: int = 4
    kind: Literal["crop"] = "crop"
    geometric: ClassVar[Literal[True]] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[True]] = True
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.padding >= 0, "padding", "non-negative", self.padding)

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        height, width = images.shape[-2:]
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, (N, C, y, x, H, W)
        y, x = self.offsets(draw)
        return windows[torch.arange(len(images), device=images.device), :, y, x]

    def offsets(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """The row and column of each window in the padded image: (N,), (N,)."""
        positions = 2 * self.padding + 1
        return (draw(0) * positions).long(), (draw(1) * positions).long()

    def move(self, draw: Draw) -> Move:
        """The same crop as a function of one image and its boxes and masks."""
        from torchvision.transforms.v2 import functional as F

        y, x = (int(offset) for offset in self.offsets(draw))
        padding = [self.padding] * 4

        def change(image: Tensor, *others: Any) -> Any:
            height, width = image.shape[-2:]
            fills = [0] + [_padding_value(other) for other in others]
            cropped = [
                F.crop(F.pad(part, padding, fill=fill), y, x, height, width)
                for part, fill in zip((image, *others), fills, strict=True)
            ]
            return cropped if others else cropped[0]

        return change


@spec
class Flip:
    """A horizontal flip, with a probability."""

    probability: float = 0.5
    kind: Literal["flip"] = "flip"
    geometric: ClassVar[Literal[True]] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[True]] = True
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        flip = (draw(0) < self.probability)[:, None, None, None]
        return torch.where(flip, images.flip(-1), images)

    def move(self, draw: Draw) -> Move:
        """The same flip as a function of one image and its boxes and masks."""
        from torchvision.transforms.v2 import functional as F

        flip = bool(draw(0) < self.probability)

        def change(*parts: Any) -> Any:
            flipped = [F.horizontal_flip(part) if flip else part for part in parts]
            return flipped if len(parts) > 1 else flipped[0]

        return change


@spec
class ResizedCrop:
    """A random crop, resized to `size`: Inception's crop (Szegedy et al., 2015)."""

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)  # fraction of the area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width to height
    interpolation: Interpolation = "bilinear"
    kind: Literal["resized_crop"] = "resized_crop"
    geometric: ClassVar[Literal[True]] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)
        require(0 < self.scale[0] <= self.scale[1], "scale", "positive and increasing", self.scale)
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", "positive and increasing", self.ratio)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, size, size)."""
        from torchvision.transforms import v2

        crop: Move = v2.RandomResizedCrop(
            self.size,
            scale=self.scale,
            ratio=self.ratio,
            interpolation=v2.InterpolationMode(self.interpolation),
            antialias=True,
        )
        return crop


@spec
class Resize:
    """Resizes the shorter side to `size`, or with `square` both sides."""

    size: int = 256
    square: bool = False
    interpolation: Interpolation = "bilinear"
    kind: Literal["resize"] = "resize"
    geometric: ClassVar[Literal[True]] = True
    random: ClassVar[bool] = False
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        from torchvision.transforms import v2

        size = [self.size, self.size] if self.square else [self.size]
        resize: Move = v2.Resize(
            size, interpolation=v2.InterpolationMode(self.interpolation), antialias=True
        )
        return resize


@spec
class CenterCrop:
    """The central square of `size` pixels; smaller images are padded with black."""

    size: int = 224
    kind: Literal["center_crop"] = "center_crop"
    geometric: ClassVar[Literal[True]] = True
    random: ClassVar[bool] = False
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)

    def single(self) -> Move:
        """One image: (C, H, W) uint8 -> (C, size, size)."""
        return self.crop

    def crop(self, image: Tensor, *others: Any) -> Any:
        """The centre of an image, with its boxes and masks; a smaller image is padded first.

        torchvision would round the places of boxes otherwise.
        """
        from torchvision.transforms.v2 import functional as F

        down, right = (max(0, self.size - side) for side in image.shape[-2:])
        padding = [right // 2, down // 2, (right + 1) // 2, (down + 1) // 2]
        fills = [0] + [_padding_value(other) for other in others]
        moved = [
            F.center_crop(F.pad(part, padding, fill=fill), [self.size])
            for part, fill in zip((image, *others), fills, strict=True)
        ]
        return moved if others else moved[0]

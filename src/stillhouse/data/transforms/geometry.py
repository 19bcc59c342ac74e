"""Geometric transforms, which change boxes and masks with the image: crop, flip and resize."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.data.random import Draw
from stillhouse.data.transforms.objects import Move, resize_parts
from stillhouse.spec import require, spec

Interpolation = Literal["bilinear", "bicubic"]


def padding_value(part: Tensor) -> int:
    """The value of padding: `IGNORE` for class masks, else 0."""
    return 0 if part.dtype == torch.bool or part.is_floating_point() else IGNORE


@spec
class Crop:
    """A random crop of the image's own size, after padding with black."""

    padding: int = 4
    kind: Literal["crop"] = "crop"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
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
            fills = [0] + [padding_value(other) for other in others]
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
    movable: ClassVar[bool] = True
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
    movable: ClassVar[bool] = True
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", "at least 1", self.size)
        require(0 < self.scale[0] <= self.scale[1], "scale", "positive and increasing", self.scale)
        require(0 < self.ratio[0] <= self.ratio[1], "ratio", "positive and increasing", self.ratio)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, size, size)."""
        from torchvision.transforms import v2

        return partial(self.crop, v2.RandomResizedCrop(self.size, self.scale, self.ratio))

    def crop(self, drawn: Any, *parts: Any) -> Any:
        """An image, with its boxes and masks, in a window that torchvision draws."""
        from torchvision.transforms.v2 import functional as F

        window = drawn.make_params([parts[0]])
        cropped = [F.crop(part, **window) for part in parts]
        return resize_parts(cropped, self.size, self.size, self.interpolation)


@spec
class Resize:
    """Resizes the shorter side to `size`, or with `square` both sides.

    The longer side is at most `longest` then. Of several sizes one is drawn for each view of an
    image, or with `range` any whole number from the smallest to the largest.
    """

    size: int | tuple[int, ...] = 256
    square: bool = False
    interpolation: Interpolation = "bilinear"
    longest: int | None = None
    range: bool = False
    kind: Literal["resize"] = "resize"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(bool(self.sizes) and min(self.sizes) >= 1, "size", "at least 1", self.size)
        least = f"at least the largest `size`, {max(self.sizes)}"
        require(
            self.longest is None or self.longest >= max(self.sizes), "longest", least, self.longest
        )
        if self.square and self.longest is not None:
            raise ValueError("`square` and `longest` exclude each other; leave one of them out")
        require(not self.range or len(self.sizes) > 1, "size", "a list with `range`", self.size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes, also where there is one."""
        return (self.size,) if isinstance(self.size, int) else self.size

    @property
    def random(self) -> bool:
        """Whether the size is drawn."""
        return min(self.sizes) < max(self.sizes)

    def single(self) -> Move:
        """The function for one image, boxes and masks: (C, H, W) uint8 -> (C, h, w)."""
        return self.resize

    def resize(self, *parts: Any) -> Any:
        """An image, with its boxes and masks, resized alike; the size by torch's generator."""
        height, width = self.sides(*parts[0].shape[-2:])
        return resize_parts(parts, height, width, self.interpolation)

    def sides(self, height: int, width: int) -> list[int]:
        """The height and width of the resized image; the size by torch's generator."""
        size = self.draw() if self.random else self.sizes[0]
        if self.square:
            return [size, size]
        short, long = min(height, width), max(height, width)
        shorter, longer = size, int(size * long / short)
        if self.longest is not None and longer > self.longest:
            shorter, longer = max(1, int(self.longest * short / long)), self.longest
        return [shorter, longer] if height <= width else [longer, shorter]

    def draw(self) -> int:
        """One of the sizes, by torch's generator."""
        if self.range:
            return int(torch.randint(min(self.sizes), max(self.sizes) + 1, ()))
        return self.sizes[int(torch.randint(len(self.sizes), ()))]


@spec
class CenterCrop:
    """The central square of `size` pixels; smaller images are padded with black."""

    size: int = 224
    kind: Literal["center_crop"] = "center_crop"
    geometric: ClassVar[Literal[True]] = True
    movable: ClassVar[bool] = True
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
        fills = [0] + [padding_value(other) for other in others]
        moved = [
            F.center_crop(F.pad(part, padding, fill=fill), [self.size])
            for part, fill in zip((image, *others), fills, strict=True)
        ]
        return moved if others else moved[0]

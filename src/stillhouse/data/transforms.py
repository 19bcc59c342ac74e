"""How images are changed: in a batch where that has a tensor form, else one by one.

Every draw depends on (seed, sample, view) alone, so that the same view of an image is the same in
every batch, process and run, and what a teacher said about it can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.data.random import mix, uniform
from stillhouse.spec import spec

Draw = Callable[[int], Tensor]  # the how-many-th number of each image: -> (N,) in [0, 1)


@spec
class Crop:
    """A random window of the image's own size, after padding with black."""

    padding: int = 4
    kind: Literal["crop"] = "crop"
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must not be negative, and is {self.padding}")

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        height, width = images.shape[-2:]
        places = 2 * self.padding + 1
        padded = torch.nn.functional.pad(images, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, (N, C, y, x, H, W)
        y, x = ((draw(i) * places).long() for i in range(2))
        return windows[torch.arange(len(images), device=images.device), :, y, x]


@spec
class Flip:
    """Left and right exchanged, with a probability."""

    probability: float = 0.5
    kind: Literal["flip"] = "flip"
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], and is {self.probability}")

    def batch(self, images: Tensor, draw: Draw) -> Tensor:
        """All images at once: (N, C, H, W) uint8 -> the same shape."""
        turned = (draw(0) < self.probability)[:, None, None, None]
        return torch.where(turned, images.flip(-1), images)


@spec
class ResizedCrop:
    """A random part of the image, resized: Inception's crop."""

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    kind: Literal["resized_crop"] = "resized_crop"

    def __post_init__(self) -> None:
        _check_size(self.size)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must rise from above 0, and is {self.scale}")

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> (C, size, size)."""
        from torchvision.transforms import v2

        made: Callable[[Tensor], Tensor] = v2.RandomResizedCrop(
            self.size, scale=self.scale, antialias=True
        )
        return made


@spec
class Resize:
    """The shorter side to a length; with `square` both sides, whatever the aspect."""

    size: int = 256
    square: bool = False
    kind: Literal["resize"] = "resize"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> (C, h, w)."""
        from torchvision.transforms import v2

        wanted = [self.size, self.size] if self.square else [self.size]
        made: Callable[[Tensor], Tensor] = v2.Resize(wanted, antialias=True)
        return made


@spec
class CenterCrop:
    """The middle of the image."""

    size: int = 224
    kind: Literal["center_crop"] = "center_crop"

    def __post_init__(self) -> None:
        _check_size(self.size)

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> (C, size, size)."""
        from torchvision.transforms import v2

        made: Callable[[Tensor], Tensor] = v2.CenterCrop(self.size)
        return made


Transform = Annotated[Crop | Flip | ResizedCrop | Resize | CenterCrop, Field(discriminator="kind")]


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, and is {size}")


def is_random(transforms: Sequence[Transform]) -> bool:
    """Whether two views of an image differ."""
    return any(isinstance(transform, Crop | Flip | ResizedCrop) for transform in transforms)


def all_batched(transforms: Sequence[Transform]) -> bool:
    """Whether every transform has a tensor form for a whole batch."""
    return all(isinstance(transform, Crop | Flip) for transform in transforms)


def transform_batch(
    images: Tensor, transforms: Sequence[Transform], seed: int, keys: Tensor, views: Tensor
) -> Tensor:
    """A batch through transforms that all have a tensor form: (N, C, H, W) -> (N, C, H, W)."""
    first = 0
    for transform in transforms:
        assert isinstance(transform, Crop | Flip)
        start = first

        def draw(number: int, start: int = start) -> Tensor:
            return uniform(seed, keys, views, start + number)

        images = transform.batch(images, draw)
        first += transform.draws
    return images


class Single:
    """Transforms for one image at a time, seeded by sample and view."""

    def __init__(self, transforms: Sequence[Transform], seed: int) -> None:
        self.seed = seed
        self.transforms = tuple(transforms)
        self._made = [None if isinstance(t, Crop | Flip) else t.single() for t in self.transforms]

    def __call__(self, image: Tensor, key: int, view: int) -> Tensor:
        """One image in one view: (C, H, W) uint8 -> (C, h, w) uint8."""
        keys, views = torch.tensor([key]), torch.tensor([view])
        first = 0
        with torch.random.fork_rng(devices=[]):
            # Not `torch.manual_seed`, which would seed the devices too, and nobody restores those.
            torch.default_generator.manual_seed(mix(self.seed, key, view))
            for transform, made in zip(self.transforms, self._made, strict=True):
                if made is not None:
                    image = made(image)
                    continue
                assert isinstance(transform, Crop | Flip)
                numbers = [
                    uniform(self.seed, keys, views, first + i) for i in range(transform.draws)
                ]
                image = transform.batch(image[None], numbers.__getitem__)[0]
                first += transform.draws
        return image


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Bytes to zero mean and unit deviation: (N, C, H, W) uint8, (C,), (C,) -> float32."""
    scale = (255 * std)[:, None, None]
    return images.to(torch.float32).div_(scale).sub_((mean / std)[:, None, None])

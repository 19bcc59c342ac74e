"""Transforms of colours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.data.transforms.checks import check_channels
from stillhouse.spec import require, spec


@spec
class ColorJitter:
    """Random brightness, contrast, saturation and hue, as in torchvision.

    The first three are multiplied by a factor from 1 - x to 1 + x; the hue is rotated by up to x of
    a full circle. Saturation and hue do not change a grey image.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    kind: Literal["color_jitter"] = "color_jitter"
    geometric: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            require(getattr(self, name) >= 0, name, "non-negative", getattr(self, name))
        require(0 <= self.hue <= 0.5, "hue", "in [0, 0.5]", self.hue)

    def single(self) -> Callable[[Tensor], Tensor]:
        """The function for one image: (C, H, W) uint8 -> the same shape."""
        from torchvision.transforms import v2

        jitter = v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)
        return partial(_jitter_checked, jitter)


def _jitter_checked(jitter: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    check_channels("color_jitter", image)
    return jitter(image)

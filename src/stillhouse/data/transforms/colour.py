"""What colours become."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.data.transforms.checks import check_channels
from stillhouse.spec import require, spec


@spec
class ColorJitter:
    """Each property times a factor of 1 - x to 1 + x, the hue turned by up to x of a circle.

    A grey image has neither saturation nor hue, and keeps that.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    kind: Literal["color_jitter"] = "color_jitter"
    moves: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            require(getattr(self, name) >= 0, name, "non-negative", getattr(self, name))
        require(0 <= self.hue <= 0.5, "hue", "in [0, 0.5]", self.hue)

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> the same shape."""
        from torchvision.transforms import v2

        made = v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)
        return partial(_jittered, made)


def _jittered(change: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    check_channels("color_jitter", image)
    return change(image)

"""Operations out of a set, drawn anew for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.transforms.checks import check_channels
from stillhouse.spec import require, spec

MOST = 10.0  # where magnitudes end, as in the paper
BINS = 31  # that torchvision divides the range of each operation into


@spec
class RandAugment:
    """So many of torchvision's 14 operations, one after the other (Cubuk et al., 2020).

    Each draws its magnitude: around `magnitude` with a `deviation`, or `uniform` over all.
    """

    ops: int = 2
    magnitude: float = 9.0
    deviation: float = 0.5
    uniform: bool = False
    kind: Literal["rand_augment"] = "rand_augment"
    moves: ClassVar[Literal[False]] = False
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.ops >= 1, "ops", "at least 1", self.ops)
        require(0 <= self.magnitude <= MOST, "magnitude", "in [0, 10]", self.magnitude)
        require(self.deviation >= 0, "deviation", "non-negative", self.deviation)

    def single(self) -> Callable[[Tensor], Tensor]:
        """One image: (C, H, W) uint8 -> the same shape."""
        return _Several(self)

    def bin(self) -> int:
        """Which bin of torchvision's an operation gets."""
        if self.uniform:
            return int(torch.randint(BINS, ()))
        drawn = self.magnitude + self.deviation * float(torch.randn(()))
        return round(min(max(drawn, 0.0), MOST) / MOST * (BINS - 1))


class _Several:
    def __init__(self, wanted: RandAugment) -> None:
        from torchvision.transforms import v2

        self.wanted = wanted
        # one of each magnitude, of which an instance of torchvision's has but one
        self.made = [v2.RandAugment(1, magnitude, BINS) for magnitude in range(BINS)]

    def __call__(self, image: Tensor) -> Tensor:
        check_channels("rand_augment", image)
        for _ in range(self.wanted.ops):
            image = self.made[self.wanted.bin()](image)
        return image

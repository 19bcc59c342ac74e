"""RandAugment: random operations of a set, for each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.data.transforms.checks import check_channels, unmovable
from stillhouse.spec import require, spec

MAX_MAGNITUDE = 10.0  # as in the paper
MAGNITUDE_BINS = 31  # into which torchvision divides the range of each operation


@spec
class RandAugment:
    """`ops` random operations of torchvision's 14 in sequence (Cubuk et al., 2020).

    Each has a random magnitude: normal around `magnitude` with a standard `deviation`, or `uniform`
    over the whole range.
    """

    ops: int = 2
    magnitude: float = 9.0
    deviation: float = 0.5
    uniform: bool = False
    kind: Literal["rand_augment"] = "rand_augment"
    geometric: ClassVar[Literal[True]] = True  # it rotates, shears and translates
    movable: ClassVar[bool] = False  # boxes and masks cannot follow
    random: ClassVar[bool] = True
    batched: ClassVar[Literal[False]] = False

    def __post_init__(self) -> None:
        require(self.ops >= 1, "ops", "at least 1", self.ops)
        require(0 <= self.magnitude <= MAX_MAGNITUDE, "magnitude", "in [0, 10]", self.magnitude)
        require(self.deviation >= 0, "deviation", "non-negative", self.deviation)

    def single(self) -> Callable[[Tensor], Tensor]:
        """The function for one image: (C, H, W) uint8 -> the same shape."""
        return _RepeatedRandAugment(self)

    def bin(self) -> int:
        """The magnitude bin of an operation, by torch's generator: 0 to 30."""
        if self.uniform:
            return int(torch.randint(MAGNITUDE_BINS, ()))
        drawn = self.magnitude + self.deviation * float(torch.randn(()))
        return round(min(max(drawn, 0.0), MAX_MAGNITUDE) / MAX_MAGNITUDE * (MAGNITUDE_BINS - 1))


class _RepeatedRandAugment:
    def __init__(self, spec: RandAugment) -> None:
        from torchvision.transforms import v2

        self.spec = spec
        # one instance of torchvision's transform for each bin, because its magnitude is fixed
        self.transforms = [
            v2.RandAugment(1, magnitude, MAGNITUDE_BINS) for magnitude in range(MAGNITUDE_BINS)
        ]

    def __call__(self, image: Tensor, *others: Any) -> Tensor:
        check_channels("rand_augment", image)
        if others:
            raise unmovable("rand_augment")
        for _ in range(self.spec.ops):
            image = self.transforms[self.spec.bin()](image)
        return image

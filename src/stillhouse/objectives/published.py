"""What all methods of the literature have: a card, a share for the labels, moving weights."""

from __future__ import annotations

import math
from dataclasses import field
from typing import ClassVar, Literal

from stillhouse.objectives.card import Card
from stillhouse.spec import spec
from stillhouse.types import Clock


@spec
class Ramp:
    """A factor that goes from one value to another over some epochs, counted from 1.

    It is `start` until `begin` epochs have passed, and `end` from `epochs` later on.
    """

    epochs: float
    begin: float = 0.0
    start: float = 0.0
    end: float = 1.0
    shape: Literal["linear", "cosine", "step"] = "linear"

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"epochs of a ramp must be above 0, and is {self.epochs}")
        if self.begin < 0:
            raise ValueError(f"begin of a ramp must not be negative, and is {self.begin}")

    def factor(self, clock: Clock) -> float:
        """What weights are multiplied by at this time."""
        done = min(1.0, max(0.0, (clock.epoch - self.begin) / self.epochs))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        elif self.shape == "step":
            done = float(done >= 1)
        return self.start + done * (self.end - self.start)


@spec
class Published:
    """A method of the literature, its options aside."""

    warmup: float = field(default=0.0, kw_only=True)  # epochs, as min(epoch / warmup, 1) from 1
    ramp: Ramp | None = field(default=None, kw_only=True)  # any other course of the weights
    label_weight: float | None = field(default=None, kw_only=True)  # None: what the paper gives
    card: ClassVar[Card]
    teaches: ClassVar[bool] = True
    reshapes: ClassVar[bool] = False  # whether the trained student gets another shape
    labels: ClassVar[float] = 1.0  # what the paper weighs the label loss with

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, and is {self.warmup}")
        if self.warmup and self.ramp:
            raise ValueError("warmup is a ramp of its own; say one of the two")

    @property
    def needs(self) -> tuple[str, ...]:
        """What the method needs, and what the loss needs that it wraps."""
        base = getattr(self, "base", None)
        return self.card.needs if base is None else (*self.card.needs, *base.needs)

    @property
    def storable(self) -> bool | None:
        """Whether stored teacher logits are all that the method needs of the teacher."""
        return self.card.storable

    @property
    def moves_teacher(self) -> bool:
        """Whether the method trains layers of the teacher."""
        return "moves" in self.needs

    def ramp_factor(self, clock: Clock) -> float:
        """What the weights are multiplied by at this time."""
        if self.ramp:
            return self.ramp.factor(clock)
        return min(1.0, clock.epoch / self.warmup) if self.warmup > 0 else 1.0

    @property
    def label_share(self) -> float:
        """The weight of the label loss beside this one."""
        return self.labels if self.label_weight is None else self.label_weight

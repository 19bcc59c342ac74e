"""The base class of published methods: a card, the weight of the label loss, weight schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Clock, Site

PriorLoss = Callable[[Mapping[str, Site]], Tensor]  # sites of a detector -> (N P,), one per prior


@spec
class Ramp:
    """A factor that goes from `start` to `end` over `epochs` epochs, counted from 1.

    It is `start` until epoch `begin`, and `end` from epoch `begin + epochs` on.
    """

    epochs: float
    begin: float = 0.0
    start: float = 0.0
    end: float = 1.0
    shape: Literal["linear", "cosine", "step"] = "linear"

    def __post_init__(self) -> None:
        require(self.epochs > 0, "epochs", "positive", self.epochs)
        require(self.begin >= 0, "begin", "non-negative", self.begin)

    def factor(self, clock: Clock) -> float:
        """The factor of the weights at this time."""
        done = min(1.0, max(0.0, (clock.epoch - self.begin) / self.epochs))
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        elif self.shape == "step":
            done = float(done >= 1)
        return self.start + done * (self.end - self.start)


@spec
class Published:
    """Base class of the specs of published methods."""

    warmup: float = field(default=0.0, kw_only=True)  # epochs, as min(epoch / warmup, 1) from 1
    ramp: Ramp | None = field(default=None, kw_only=True)  # any other schedule of the weights
    label_weight: float | None = field(default=None, kw_only=True)  # None: as in the paper
    card: ClassVar[Card]
    teaches: ClassVar[bool] = True
    dense: ClassVar[bool] = False  # whether one class per row is enough, where images have several
    reshapes: ClassVar[bool] = False  # whether it changes the architecture of the student
    labels: ClassVar[float] = 1.0  # weight of the label loss in the paper

    def __post_init__(self) -> None:
        require(self.warmup >= 0, "warmup", "non-negative", self.warmup)
        if self.warmup and self.ramp:
            raise ValueError("`warmup` and `ramp` exclude each other; set one of them")

    @property
    def needs(self) -> tuple[str, ...]:
        """The needs of the method, and of the loss that it wraps."""
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
        """The factor of the weights at this time, by `ramp` or `warmup`."""
        if self.ramp:
            return self.ramp.factor(clock)
        return min(1.0, clock.epoch / self.warmup) if self.warmup > 0 else 1.0

    def prior_losses(self) -> Mapping[str, PriorLoss]:
        """Functions of the loss of each prior of a detector, by name; empty where it has none."""
        return {}

    @property
    def label_share(self) -> float:
        """The weight of the label loss."""
        return self.labels if self.label_weight is None else self.label_weight

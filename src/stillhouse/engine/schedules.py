"""How the learning rate moves: the schedules that a recipe can name.

A schedule is a pure function of the step, so a resumed run needs nothing but its step. Epochs may
be fractions. Warm-up multiplies the undisturbed schedule by a ramp and moves no milestone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.spec import require, spec


@spec
class Constant:
    """The same learning rate all along."""

    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["constant"] = "constant"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        return _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)


@spec
class Step:
    """Times `drop` after each of some epochs."""

    milestones: tuple[float, ...] = (150, 180, 210)  # epochs
    drop: float = 0.1
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["step"] = "step"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(self.drop > 0, "drop", "positive", self.drop)
        increasing = all(a < b for a, b in pairwise((0.0, *self.milestones)))
        require(increasing, "milestones", "positive and increasing", self.milestones)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        passed = sum(step >= round(epoch * steps_per_epoch) for epoch in self.milestones)
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return float(ramp * self.drop**passed)


@spec
class Cosine:
    """Half a cosine down to a floor (Loshchilov and Hutter, 2017)."""

    floor: float = 0.0  # a fraction of the learning rate
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(0 <= self.floor <= 1, "floor", "in [0, 1]", self.floor)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return ramp * _half_cosine(1.0, self.floor, _share(step, steps))


@spec
class OneCycle:
    """Up to the learning rate and far below where it began, each by half a cosine (Smith, 2018).

    The shape of torch's `OneCycleLR`; momentum stays as it is.
    """

    pct_start: float = 0.15  # the fraction of the run that goes up
    start_divisor: float = 25.0
    end_divisor: float = 1e4  # of where it began
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["one_cycle"] = "one_cycle"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(0 <= self.pct_start <= 1, "pct_start", "in [0, 1]", self.pct_start)
        require(self.start_divisor >= 1, "start_divisor", "at least 1", self.start_divisor)
        require(self.end_divisor >= 1, "end_divisor", "at least 1", self.end_divisor)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        start = 1 / self.start_divisor
        last = steps - 1
        step = min(step, last)
        peak = self.pct_start * steps - 1
        if peak > 0 and step <= peak:
            return ramp * _half_cosine(start, 1.0, step / peak)
        fallen = (step - peak) / (last - peak) if last > peak else 0.0
        return ramp * _half_cosine(1.0, start / self.end_divisor, fallen)


@spec
class Poly:
    """A power of what is left of the run, down to a floor."""

    power: float = 0.9
    floor: float = 0.0  # a fraction of the learning rate
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["poly"] = "poly"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(self.power > 0, "power", "positive", self.power)
        require(0 <= self.floor <= 1, "floor", "in [0, 1]", self.floor)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        left = (1 - _share(step, steps)) ** self.power
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return float(ramp * (self.floor + (1 - self.floor) * left))


@spec
class Exponential:
    """Times `drop` once in some epochs, as the EfficientNet recipes do."""

    drop: float = 0.97
    every: float = 2.4  # epochs
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["exponential"] = "exponential"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(0 < self.drop <= 1, "drop", "in (0, 1]", self.drop)
        require(self.every > 0, "every", "positive", self.every)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the learning rate by at a step, counted from 0."""
        # 2.4 epochs of 10 steps are 24 steps, whatever the last bit of the product says.
        times = math.floor(step / (self.every * steps_per_epoch) + 1e-9)
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return float(ramp * self.drop**times)


Schedule = Annotated[
    Constant | Step | Cosine | OneCycle | Poly | Exponential, Field(discriminator="kind")
]


def rates(optimiser: torch.optim.Optimizer) -> list[float]:
    """The learning rate of each group.

    Take them when the optimiser is new: its saved state holds rates that a schedule has changed.
    """
    return [float(group["lr"]) for group in optimiser.param_groups]


def apply(optimiser: torch.optim.Optimizer, base_lrs: Sequence[float], factor: float) -> None:
    """Set the learning rate of each group to its own base, times the factor of the step."""
    for group, base in zip(optimiser.param_groups, base_lrs, strict=True):
        if isinstance(group["lr"], Tensor):  # a captured or compiled step reads it in place
            group["lr"].fill_(base * factor)
        else:
            group["lr"] = base * factor


def _ramp(step: int, length: float, start: float) -> float:
    return 1.0 if step >= length else start + (1 - start) * step / length


def _share(step: int, steps: int) -> float:
    return min(1.0, step / max(1, steps))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _check_warmup(warmup: float, start: float) -> None:
    require(0 <= warmup < math.inf, "warmup", "non-negative and finite", warmup)
    require(0 <= start <= 1, "warmup_start", "in [0, 1]", start)

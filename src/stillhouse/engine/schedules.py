"""The learning rate schedules that a recipe can name.

A schedule is a pure function of the step, so a resumed run needs only its step. Epochs may be
fractions. Warm-up multiplies the schedule by a ramp and does not shift milestones.
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
class ConstantSchedule:
    """A constant learning rate."""

    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["constant"] = "constant"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""
        return _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)


@spec
class StepSchedule:
    """The learning rate is multiplied by `drop` at each milestone.

    With `warmup_constant`, it keeps its first value during the warm-up instead of increasing.
    """

    milestones: tuple[float, ...] = (150, 180, 210)  # epochs
    drop: float = 0.1
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    warmup_constant: bool = False
    kind: Literal["step"] = "step"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(self.drop > 0, "drop", "positive", self.drop)
        increasing = all(a < b for a, b in pairwise((0.0, *self.milestones)))
        require(increasing, "milestones", "positive and increasing", self.milestones)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""
        passed = sum(step >= round(epoch * steps_per_epoch) for epoch in self.milestones)
        length = self.warmup * steps_per_epoch
        if self.warmup_constant:
            ramp = self.warmup_start if step < length else 1.0
        else:
            ramp = _ramp(step, length, self.warmup_start)
        return float(ramp * self.drop**passed)


@spec
class CosineSchedule:
    """Half a cosine from 1 to `floor` (Loshchilov and Hutter, 2017)."""

    floor: float = 0.0  # a fraction of the learning rate
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(0 <= self.floor <= 1, "floor", "in [0, 1]", self.floor)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return ramp * _half_cosine(1.0, self.floor, _progress(step, steps))


@spec
class OneCycleSchedule:
    """Up to the learning rate, then far below the initial value, by half cosines (Smith, 2018).

    The shape of torch's `OneCycleLR`; momentum does not change.
    """

    pct_start: float = 0.15  # the fraction of the run in which it increases
    start_divisor: float = 25.0
    end_divisor: float = 1e4  # of the initial value
    warmup: float = 0.0  # epochs
    warmup_start: float = 0.0  # a fraction of the learning rate
    kind: Literal["one_cycle"] = "one_cycle"

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.warmup_start)
        require(0 <= self.pct_start <= 1, "pct_start", "in [0, 1]", self.pct_start)
        require(self.start_divisor >= 1, "start_divisor", "at least 1", self.start_divisor)
        require(self.end_divisor >= 1, "end_divisor", "at least 1", self.end_divisor)

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The factor of the learning rate at a step, counted from 0."""
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        start = 1 / self.start_divisor
        last = steps - 1
        step = min(step, last)
        peak = self.pct_start * steps - 1
        if peak > 0 and step <= peak:
            return ramp * _half_cosine(start, 1.0, step / peak)
        descent = (step - peak) / (last - peak) if last > peak else 0.0
        return ramp * _half_cosine(1.0, start / self.end_divisor, descent)


@spec
class PolySchedule:
    """A power of the remaining fraction of the run, from 1 to `floor`."""

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
        """The factor of the learning rate at a step, counted from 0."""
        left = (1 - _progress(step, steps)) ** self.power
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return float(ramp * (self.floor + (1 - self.floor) * left))


@spec
class ExponentialSchedule:
    """The learning rate is multiplied by `drop` every few epochs, as in EfficientNet recipes."""

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
        """The factor of the learning rate at a step, counted from 0."""
        # 2.4 epochs of 10 steps are 24 steps, in spite of rounding errors.
        times = math.floor(step / (self.every * steps_per_epoch) + 1e-9)
        ramp = _ramp(step, self.warmup * steps_per_epoch, self.warmup_start)
        return float(ramp * self.drop**times)


Schedule = Annotated[
    ConstantSchedule
    | StepSchedule
    | CosineSchedule
    | OneCycleSchedule
    | PolySchedule
    | ExponentialSchedule,
    Field(discriminator="kind"),
]


def learning_rates(optimiser: torch.optim.Optimizer) -> list[float]:
    """The learning rate of each group.

    Call it on a new optimiser: its saved state has learning rates that a schedule has changed.
    """
    return [float(group["lr"]) for group in optimiser.param_groups]


def set_learning_rates(
    optimiser: torch.optim.Optimizer, base_lrs: Sequence[float], factor: float
) -> None:
    """Set the learning rate of each group to its base times the factor of the step."""
    for group, base in zip(optimiser.param_groups, base_lrs, strict=True):
        if isinstance(group["lr"], Tensor):  # a captured or compiled step reads the tensor
            group["lr"].fill_(base * factor)
        else:
            group["lr"] = base * factor


def _ramp(step: int, length: float, start: float) -> float:
    return 1.0 if step >= length else start + (1 - start) * step / length


def _progress(step: int, steps: int) -> float:
    return min(1.0, step / max(1, steps))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _check_warmup(warmup: float, start: float) -> None:
    require(0 <= warmup < math.inf, "warmup", "non-negative and finite", warmup)
    require(0 <= start <= 1, "warmup_start", "in [0, 1]", start)

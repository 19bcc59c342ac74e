"""Schedules against torch's own, step by step."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.optim import lr_scheduler

from stillhouse.engine.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    OneCycleSchedule,
    PolySchedule,
    Schedule,
    StepSchedule,
    learning_rates,
    set_learning_rates,
)
from stillhouse.spec import members

BASE = 0.4
Make = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def sgd(lr: float = BASE) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def torch_rates(make: Make, steps: int) -> list[float]:
    optimiser = sgd()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = make(optimiser)
        found = []
        for _ in range(steps):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
    return found


CASES: list[tuple[object, Make, int, int]] = [
    (ConstantSchedule(), lambda o: lr_scheduler.ConstantLR(o, 1.0), 20, 10),
    (StepSchedule((1.0, 2.5)), lambda o: lr_scheduler.MultiStepLR(o, [10, 25]), 40, 10),
    (
        StepSchedule((0.7, 1.4), drop=0.5),
        lambda o: lr_scheduler.MultiStepLR(o, [7, 14], 0.5),
        30,
        10,
    ),
    (CosineSchedule(), lambda o: lr_scheduler.CosineAnnealingLR(o, 60), 60, 10),
    (CosineSchedule(0.25), lambda o: lr_scheduler.CosineAnnealingLR(o, 60, BASE / 4), 60, 10),
    (PolySchedule(), lambda o: lr_scheduler.PolynomialLR(o, 50, 0.9), 50, 10),
    (PolySchedule(2.0), lambda o: lr_scheduler.PolynomialLR(o, 50, 2.0), 50, 10),
    (ExponentialSchedule(), lambda o: lr_scheduler.StepLR(o, 24, 0.97), 100, 10),
    (
        ConstantSchedule(warmup=2, warmup_start=0.1),
        lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 20),
        50,
        10,
    ),
]


@pytest.mark.parametrize(("schedule", "make", "steps", "epoch"), CASES)
def test_it_is_torchs_own(schedule, make, steps, epoch):
    ours = [BASE * schedule.factor(step, steps, epoch) for step in range(steps)]
    torchs = torch_rates(make, steps)
    assert max(abs(a - b) for a, b in zip(ours, torchs, strict=True)) < 1e-12


@pytest.mark.parametrize("rise", [0.05, 0.15, 0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("steps", [7, 40, 100])
def test_one_cycle_is_torchs_own(rise, steps):
    def make(optimiser: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimiser, BASE, steps, pct_start=rise, cycle_momentum=False, div_factor=20,
            final_div_factor=300,
        )  # fmt: skip

    schedule = OneCycleSchedule(rise, 20, 300)
    ours = [BASE * schedule.factor(step, steps, 10) for step in range(steps)]
    torchs = torch_rates(make, steps)
    assert max(abs(a - b) for a, b in zip(ours, torchs, strict=True)) < 1e-12


def test_one_cycle_where_torch_divides_by_zero():
    assert OneCycleSchedule(0.1).factor(0, 10, 10) == 1.0  # the peak is the first step
    assert OneCycleSchedule(1.0).factor(9, 10, 10) == 1.0  # and here the last
    assert OneCycleSchedule().factor(0, 1, 1) > 0
    assert OneCycleSchedule(0.0).factor(9, 10, 10) == pytest.approx(1 / (25 * 1e4))


def test_warmup_multiplies_and_moves_nothing():
    bare, warmed = CosineSchedule(0.1), CosineSchedule(0.1, warmup=1.5, warmup_start=0.2)
    for step in range(60):
        ramp = min(1.0, 0.2 + 0.8 * step / 15)
        assert warmed.factor(step, 60, 10) == pytest.approx(ramp * bare.factor(step, 60, 10))
    dropped = StepSchedule((2.0,), warmup=3)
    assert dropped.factor(20, 100, 10) == pytest.approx(0.1 * 20 / 30)


@pytest.mark.parametrize("member", members(Schedule))
def test_every_member(member):
    schedule = member(warmup=1.0, warmup_start=0.5)
    factors = [schedule.factor(step, 240, 1) for step in range(240)]
    assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in factors)
    assert factors[0] == pytest.approx(0.5 * member().factor(0, 240, 1))
    # Beyond its end, where a run of one step too many might look, nothing rises again.
    assert 0 <= schedule.factor(241, 240, 1) <= factors[-1] + 1e-12
    adapter = TypeAdapter(Schedule)
    assert adapter.validate_python({"kind": schedule.kind, "warmup": 1, "warmup_start": 0.5})
    with pytest.raises(ValidationError, match="`warmup` must be non-negative and finite, got"):
        adapter.validate_python({"kind": schedule.kind, "warmup": -1})
    with pytest.raises(ValueError, match=r"`warmup_start` must be in \[0, 1\], got 2.0"):
        member(warmup_start=2.0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: StepSchedule((3.0, 2.0)), "`milestones` must be positive and increasing, got"),
        (lambda: StepSchedule((0.0,)), "`milestones` must be positive and increasing"),
        (lambda: StepSchedule(drop=0.0), "`drop` must be positive"),
        (lambda: CosineSchedule(1.5), r"`floor` must be in \[0, 1\], got 1.5"),
        (lambda: OneCycleSchedule(1.5), r"`pct_start` must be in \[0, 1\], got 1.5"),
        (lambda: OneCycleSchedule(0.1, 0.5), "`start_divisor` must be at least 1, got 0.5"),
        (lambda: PolySchedule(0.0), "`power` must be positive, got 0.0"),
        (lambda: ExponentialSchedule(every=0.0), "`every` must be positive, got 0.0"),
    ],
)
def test_options_are_refused_by_name(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_milestones_come_from_a_list():
    read = TypeAdapter(Schedule).validate_python({"kind": "step", "milestones": [8, 11]})
    assert read == StepSchedule((8.0, 11.0))


def test_apply_keeps_the_proportions_of_the_groups():
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.01}], lr=0.1)
    base = learning_rates(optimiser)
    assert base == [0.1, 0.01]
    for factor in (0.5, 0.25, 1.0):  # not cumulative
        set_learning_rates(optimiser, base, factor)
        assert learning_rates(optimiser) == [0.1 * factor, 0.01 * factor]
    with pytest.raises(ValueError, match="argument"):
        set_learning_rates(optimiser, [0.1], 0.5)


def test_apply_fills_a_rate_that_is_a_tensor():
    rate = torch.tensor(0.1)
    optimiser = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=rate, capturable=True)
    set_learning_rates(optimiser, [0.1], 0.5)
    assert optimiser.param_groups[0]["lr"] is rate and rate.item() == pytest.approx(0.05)

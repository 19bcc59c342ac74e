"""How the weights of a method move over a run."""

from __future__ import annotations

import math

import pytest

from stillhouse.methods.catalogue import published
from stillhouse.objectives import presets
from stillhouse.objectives.published import Ramp
from stillhouse.types import Clock


def at(epoch: int) -> Clock:
    return Clock((epoch - 1) * 10, 1000, 10)


def course(ramp: Ramp, epochs: int = 12) -> list[float]:
    return [ramp.factor(at(epoch)) for epoch in range(1, epochs + 1)]


def test_a_ramp_rises_from_its_beginning_to_its_end() -> None:
    rising = course(Ramp(4, begin=2))
    assert rising == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]
    falling = course(Ramp(2, begin=3, start=1, end=0.5))
    assert falling == [1, 1, 1, 0.75, *[0.5] * 8]


def test_a_ramp_may_be_a_cosine_or_a_step() -> None:
    want = [(1 - math.cos(math.pi * min(1, e / 4))) / 2 for e in range(1, 13)]
    assert course(Ramp(4, shape="cosine")) == pytest.approx(want)
    assert course(Ramp(3, start=1, end=0, shape="step")) == [1, 1, *[0] * 10]


def test_a_ramp_of_an_epoch_is_over_at_once() -> None:
    assert course(Ramp(1)) == [1.0] * 12  # epochs count from 1, as a warm-up's do
    assert course(Ramp(20)) == pytest.approx(
        [presets.kd(warmup=20).ramp_factor(at(e)) for e in range(1, 13)]
    )


def test_a_course_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="`epochs` must be positive, got"):
        Ramp(0)
    with pytest.raises(ValueError, match="`begin` must be non-negative, got"):
        Ramp(1, begin=-1)
    with pytest.raises(ValueError, match="set one of them"):
        presets.kd(warmup=3, ramp=Ramp(2))


@pytest.mark.parametrize("name", published())
def test_every_method_may_be_given_a_ramp(name: str) -> None:
    spec = published()[name](ramp=Ramp(10, start=1, end=0))
    assert spec.ramp_factor(at(5)) == 0.5 and spec.ramp_factor(at(50)) == 0


def test_a_ramp_of_lskd_stands_before_its_base_s() -> None:
    base = presets.dkd(warmup=20)
    assert presets.lskd(base=base, ramp=Ramp(4)).ramp_factor(at(2)) == 0.5
    assert presets.lskd(base=presets.kd(ramp=Ramp(4))).ramp_factor(at(2)) == 0.5

"""Axes with round tick values."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.report.axis_scale import (
    AxisScale,
    auto_scale,
    enclosing_scale,
    linear_scale,
    tick_labels,
)

VALUES = st.lists(
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), min_size=0, max_size=6
)


def hold(scale: AxisScale) -> None:
    """What is true of every axis."""
    assert scale.low < scale.high
    assert 1 <= len(scale.ticks) <= 12
    assert all(a < b for a, b in pairwise(scale.ticks))
    reach = (scale.high - scale.low) * 1e-9
    assert scale.low - reach <= scale.ticks[0] and scale.ticks[-1] <= scale.high + reach
    assert len(set(scale.labels)) == len(scale.labels) == len(scale.ticks)


@given(VALUES)
def test_any_values_have_an_axis(values: list[float | None]) -> None:
    for scale in (enclosing_scale(values), linear_scale(values), auto_scale(values)):
        hold(scale)
        known = [v for v in values if v is not None and abs(v) < 1e300]
        reach = (scale.high - scale.low) * 1e-6
        assert all(scale.low - reach <= v <= scale.high + reach for v in known)


def test_an_enclosing_scale_ends_at_ticks() -> None:
    scale = enclosing_scale([0, 76.1, 86.1], count=4)
    assert (scale.low, scale.high) == (0, 100)
    assert scale.labels == ("0", "25", "50", "75", "100")
    assert scale.share(76.1) == 76.1


def test_tick_labels_have_the_digits_they_need() -> None:
    assert tick_labels([0, 0.25, 0.5]) == ("0.00", "0.25", "0.50")
    assert tick_labels([-1000, 0, 1000]) == ("−1,000", "0", "1,000")
    assert tick_labels([1e9, 1.5e9]) == ("1e9", "1.5e9")
    assert tick_labels([0, 2e-9]) == ("0", "2e−9")
    assert tick_labels([]) == ()


def test_steps_of_whole_numbers_are_whole() -> None:
    assert linear_scale([0, 1, 2]).labels == ("0", "1", "2")
    assert linear_scale([0, 10]).labels == ("0", "2", "4", "6", "8", "10")


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([1e-9, 1e9], True), ([1, 500], False), ([0, 1e9], False), ([-1, 1e9], False), ([], False)],
)
def test_several_decades_are_logarithmic(values: list[float], logarithmic: bool) -> None:
    assert auto_scale(values).logarithmic == logarithmic

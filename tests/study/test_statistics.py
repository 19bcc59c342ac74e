"""Intervals as scipy has them."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from stillhouse.study.statistics import paired_interval, spread

PAIRS = [
    ([71.8, 72.1, 71.5], [70.1, 70.4, 70.3]),
    ([1.0, 2.0], [3.0, 1.0]),
    ([float(i * i % 7) for i in range(12)], [float(i % 5) for i in range(12)]),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_interval_is_that_of_the_paired_t_test(
    ours: list[float], theirs: list[float], level: float
) -> None:
    found = paired_interval(ours, theirs, level)
    wanted = ttest_rel(ours, theirs).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx((found.low + found.high) / 2)
    assert found.mean == pytest.approx(sum(ours) / len(ours) - sum(theirs) / len(theirs))


def test_pairs_that_agree_have_an_interval_of_no_width() -> None:
    assert paired_interval([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 2.0)


def test_the_interval_changes_its_sign_with_the_sides() -> None:
    ours, theirs = PAIRS[0]
    one, other = paired_interval(ours, theirs), paired_interval(theirs, ours)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_what_has_no_interval_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=f"two pairs .* got {len(ours)} and {len(theirs)} values"):
        paired_interval(ours, theirs)


def test_the_spread_is_the_sample_s_deviation() -> None:
    assert spread([1.0, 3.0]) == pytest.approx(2**0.5)
    assert spread([5.0]) == 0 and spread([2.0, 2.0, 2.0]) == 0

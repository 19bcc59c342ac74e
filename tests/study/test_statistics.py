"""Intervals, tests, corrections and ranks against scipy and plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, rankdata, ttest_rel

from stillhouse.study.statistics import (
    bootstrap_interval,
    difference_interval,
    holm_correction,
    mean_ranks,
    p_value,
    standard_deviation,
    t_interval,
)

PAIRS = [
    ([71.8, 72.1, 71.5], [70.1, 70.4, 70.3]),
    ([1.0, 2.0], [3.0, 1.0]),
    ([float(i * i % 7) for i in range(12)], [float(i % 5) for i in range(12)]),
]
probabilities = st.dictionaries(st.text(min_size=1), st.floats(0, 1), min_size=1, max_size=8)


@pytest.mark.parametrize(("values", "baseline"), PAIRS)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_interval_equals_that_of_scipy(
    values: list[float], baseline: list[float], level: float
) -> None:
    result = t_interval(values, baseline, level)
    wanted = ttest_rel(values, baseline).confidence_interval(level)
    assert (result.low, result.high) == pytest.approx((wanted.low, wanted.high))
    assert result.mean == pytest.approx((result.low + result.high) / 2)
    assert result.mean == pytest.approx(sum(values) / len(values) - sum(baseline) / len(baseline))


def test_equal_differences_have_an_interval_of_width_zero() -> None:
    for of in (t_interval, bootstrap_interval):
        assert of([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 2.0)


def test_swapping_the_arms_negates_the_interval() -> None:
    values, baseline = PAIRS[0]
    one, other = t_interval(values, baseline), t_interval(baseline, values)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


@pytest.mark.parametrize(("values", "baseline"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_an_interval_needs_two_pairs(values: list[float], baseline: list[float]) -> None:
    for of in (t_interval, bootstrap_interval, p_value):
        with pytest.raises(
            ValueError, match=f"two pairs, got {len(values)} and {len(baseline)} values"
        ):
            of(values, baseline)


def test_the_standard_deviation_is_that_of_the_sample() -> None:
    assert standard_deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert standard_deviation([5.0]) == 0 and standard_deviation([2.0, 2.0, 2.0]) == 0


def test_the_bootstrap_interval_has_the_quantiles_of_all_resamples() -> None:
    """Five pairs have 3125 resamples; the interval matches all of them up to sampling error."""
    baseline, gains = [70.0] * 5, [0.31, 1.72, -0.45, 2.9, 1.13]
    values = [70 + gain for gain in gains]
    every = [sum(draw) / 5 for draw in itertools.product(gains, repeat=5)]
    result = bootstrap_interval(values, baseline)
    assert result.low == pytest.approx(np.quantile(every, 0.025), abs=0.03)
    assert result.high == pytest.approx(np.quantile(every, 0.975), abs=0.03)
    assert (
        result
        == bootstrap_interval(values, baseline)
        == difference_interval(values, baseline, "bootstrap")
    )
    assert difference_interval(values, baseline, "t") == t_interval(values, baseline)


def test_the_bootstrap_of_many_pairs_is_close_to_the_t_interval() -> None:
    rng = np.random.default_rng(1)
    values, baseline = rng.normal(1, 1, 60).tolist(), rng.normal(0, 1, 60).tolist()
    one, other = bootstrap_interval(values, baseline), t_interval(values, baseline)
    assert tuple(one) == pytest.approx(tuple(other), abs=0.05)


@pytest.mark.parametrize(("values", "baseline"), PAIRS)
def test_the_p_value_equals_that_of_scipy(values: list[float], baseline: list[float]) -> None:
    assert p_value(values, baseline) == pytest.approx(ttest_rel(values, baseline).pvalue)


def test_the_p_value_of_constant_differences() -> None:
    assert p_value([1.0, 2.0], [1.0, 2.0]) == 1
    assert p_value([2.0, 3.0], [1.0, 2.0]) == 0


def plain_holm(values: dict[str, float]) -> dict[str, float]:
    """Reject the smallest at level/m, the next at level/(m-1), …: the least level that rejects."""
    result = {}
    for name, value in values.items():
        before = [(v, n) for n, v in values.items() if (v, n) <= (value, name)]
        levels = [(len(values) - place) * v for place, (v, _) in enumerate(sorted(before))]
        result[name] = min(1.0, max(levels))
    return result


@given(probabilities)
def test_holm_equals_the_step_down_procedure(values: dict[str, float]) -> None:
    result = holm_correction(values)
    assert result == pytest.approx(plain_holm(values))
    assert all(result[name] >= values[name] for name in values)
    assert max(result.values()) <= 1


def test_holm_is_stricter_than_benjamini_hochberg() -> None:
    values = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.5}
    assert holm_correction(values) == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5})
    assert all(
        np.array([*holm_correction(values).values()]) >= false_discovery_control([*values.values()])
    )


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=6))
def test_mean_ranks_equal_those_of_scipy(table: list[list[int]]) -> None:
    scores = {str(i): dict(enumerate(map(float, row))) for i, row in enumerate(table)}
    wanted = np.mean([rankdata([-row[seed] for row in table]) for seed in range(3)], 0)
    assert mean_ranks(scores) == pytest.approx({str(i): w for i, w in enumerate(wanted)})


def test_ranks_use_common_seeds_only() -> None:
    scores = {"a": {0: 1.0, 1: 5.0}, "b": {1: 3.0, 2: 9.0}}
    assert mean_ranks(scores) == {"a": 1.0, "b": 2.0}
    assert mean_ranks({"a": {0: 1.0}, "b": {1: 1.0}}) == {} == mean_ranks({})

"""Intervals, tests, corrections and ranks as scipy and plain loops have them."""

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


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_interval_is_that_of_the_paired_t_test(
    ours: list[float], theirs: list[float], level: float
) -> None:
    found = t_interval(ours, theirs, level)
    wanted = ttest_rel(ours, theirs).confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx((found.low + found.high) / 2)
    assert found.mean == pytest.approx(sum(ours) / len(ours) - sum(theirs) / len(theirs))


def test_pairs_that_agree_have_an_interval_of_no_width() -> None:
    for of in (t_interval, bootstrap_interval):
        assert of([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]) == (2.0, 2.0, 2.0)


def test_the_interval_changes_its_sign_with_the_sides() -> None:
    ours, theirs = PAIRS[0]
    one, other = t_interval(ours, theirs), t_interval(theirs, ours)
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_what_has_no_interval_is_refused(ours: list[float], theirs: list[float]) -> None:
    for of in (t_interval, bootstrap_interval, p_value):
        with pytest.raises(
            ValueError, match=f"two pairs, got {len(ours)} and {len(theirs)} values"
        ):
            of(ours, theirs)


def test_the_spread_is_the_sample_s_deviation() -> None:
    assert standard_deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert standard_deviation([5.0]) == 0 and standard_deviation([2.0, 2.0, 2.0]) == 0


def test_the_bootstrap_has_the_quantiles_of_every_resample() -> None:
    """Five pairs have 3125 resamples: the interval is read off all of them, but for chance."""
    theirs, gains = [70.0] * 5, [0.31, 1.72, -0.45, 2.9, 1.13]
    ours = [70 + gain for gain in gains]
    every = [sum(draw) / 5 for draw in itertools.product(gains, repeat=5)]
    found = bootstrap_interval(ours, theirs)
    assert found.low == pytest.approx(np.quantile(every, 0.025), abs=0.03)
    assert found.high == pytest.approx(np.quantile(every, 0.975), abs=0.03)
    assert (
        found == bootstrap_interval(ours, theirs) == difference_interval(ours, theirs, "bootstrap")
    )
    assert difference_interval(ours, theirs, "t") == t_interval(ours, theirs)


def test_the_bootstrap_of_many_pairs_is_about_the_t_interval() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(1, 1, 60).tolist(), rng.normal(0, 1, 60).tolist()
    one, other = bootstrap_interval(ours, theirs), t_interval(ours, theirs)
    assert tuple(one) == pytest.approx(tuple(other), abs=0.05)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_p_is_that_of_the_paired_t_test(ours: list[float], theirs: list[float]) -> None:
    assert p_value(ours, theirs) == pytest.approx(ttest_rel(ours, theirs).pvalue)


def test_p_where_nothing_varies() -> None:
    assert p_value([1.0, 2.0], [1.0, 2.0]) == 1
    assert p_value([2.0, 3.0], [1.0, 2.0]) == 0


def plain_holm(values: dict[str, float]) -> dict[str, float]:
    """Reject the smallest at level/m, the next at level/(m-1), …: the least level that rejects."""
    found = {}
    for name, value in values.items():
        before = [(v, n) for n, v in values.items() if (v, n) <= (value, name)]
        levels = [(len(values) - place) * v for place, (v, _) in enumerate(sorted(before))]
        found[name] = min(1.0, max(levels))
    return found


@given(probabilities)
def test_holm_rejects_what_the_step_down_procedure_does(values: dict[str, float]) -> None:
    found = holm_correction(values)
    assert found == pytest.approx(plain_holm(values))
    assert all(found[name] >= values[name] for name in values)
    assert max(found.values()) <= 1


def test_holm_is_stricter_than_what_controls_only_false_discoveries() -> None:
    values = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.5}
    assert holm_correction(values) == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5})
    assert all(
        np.array([*holm_correction(values).values()]) >= false_discovery_control([*values.values()])
    )


@given(st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), min_size=1, max_size=6))
def test_mean_ranks_are_those_of_scipy(table: list[list[int]]) -> None:
    scores = {str(i): dict(enumerate(map(float, row))) for i, row in enumerate(table)}
    wanted = np.mean([rankdata([-row[seed] for row in table]) for seed in range(3)], 0)
    assert mean_ranks(scores) == pytest.approx({str(i): w for i, w in enumerate(wanted)})


def test_ranks_are_over_the_seeds_that_all_have() -> None:
    scores = {"a": {0: 1.0, 1: 5.0}, "b": {1: 3.0, 2: 9.0}}
    assert mean_ranks(scores) == {"a": 1.0, "b": 2.0}
    assert mean_ranks({"a": {0: 1.0}, "b": {1: 1.0}}) == {} == mean_ranks({})

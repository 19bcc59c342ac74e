"""Statistics of paired differences over seeds: intervals, tests, corrections and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Literal, NamedTuple

IntervalKind = Literal["t", "bootstrap"]
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean difference with the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def standard_deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def paired_differences(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """`values - baseline`, pair by pair.

    Raises:
        ValueError: if the lengths differ or there are fewer than two pairs.
    """
    if len(values) != len(baseline) or len(values) < 2:
        raise ValueError(
            f"an interval needs at least two pairs, got {len(values)} and {len(baseline)} values"
        )
    return [a - b for a, b in zip(values, baseline, strict=True)]


def difference_interval(
    values: Sequence[float],
    baseline: Sequence[float],
    kind: IntervalKind = "t",
    level: float = 0.95,
) -> Interval:
    """The confidence interval of the mean paired difference; one pair for each seed."""
    interval = t_interval if kind == "t" else bootstrap_interval
    return interval(values, baseline, level)


def t_interval(values: Sequence[float], baseline: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean paired difference."""
    from scipy.stats import t

    gains = paired_differences(values, baseline)
    centre = mean(gains)
    half = float(t.ppf((1 + level) / 2, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return Interval(centre, centre - half, centre + half)


def bootstrap_interval(
    values: Sequence[float], baseline: Sequence[float], level: float = 0.95
) -> Interval:
    """The percentile bootstrap interval of the mean paired difference (Efron, 1979).

    It assumes no distribution, but is too narrow for a handful of seeds. The random seed is fixed,
    so that the interval is reproducible.
    """
    import numpy as np

    gains = np.asarray(paired_differences(values, baseline))
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gains.mean()), float(low), float(high))


def p_value(values: Sequence[float], baseline: Sequence[float]) -> float:
    """The two-sided p value of the paired t test."""
    from scipy.stats import t

    gains = paired_differences(values, baseline)
    centre, deviation = mean(gains), stdev(gains)
    if deviation == 0:
        return 1.0 if centre == 0 else 0.0
    return float(2 * t.sf(abs(centre) / (deviation / len(gains) ** 0.5), len(gains) - 1))


def holm_correction(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values corrected for multiple comparisons, by name (Holm, 1979)."""
    ordered = sorted(p_values, key=p_values.__getitem__)
    corrected: dict[str, float] = {}
    largest = 0.0
    for position, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - position) * p_values[name]))
        corrected[name] = largest
    return corrected


def mean_ranks(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """The mean rank by name over the seeds that all have; 1 is the best, ties share a rank.

    `scores` maps name -> seed -> score. The result is empty without a common seed.
    """
    if not scores:
        return {}
    seeds = set.intersection(*(set(values) for values in scores.values()))
    if not seeds:
        return {}
    return {name: mean(rank_at_seed(name, scores, seed) for seed in seeds) for name in scores}


def rank_at_seed(name: str, scores: Mapping[str, Mapping[int, float]], seed: int) -> float:
    """The rank at one seed: 1 plus the number of higher scores and half the number of ties."""
    score = scores[name][seed]
    values = [by_seed[seed] for by_seed in scores.values()]
    return 1 + sum(v > score for v in values) + (sum(v == score for v in values) - 1) / 2

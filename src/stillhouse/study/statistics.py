"""Means, spreads and paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean difference and where it lies with the stated confidence."""

    mean: float
    low: float
    high: float


def spread(values: Sequence[float]) -> float:
    """The sample's standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], level: float = 0.95
) -> Interval:
    """Student's t interval of the mean difference of pairs, one a seed."""
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(
            f"an interval needs two pairs or more, and got {len(ours)} and {len(theirs)} values"
        )
    from scipy.stats import t

    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    centre = mean(gains)
    half = float(t.ppf((1 + level) / 2, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return Interval(centre, centre - half, centre + half)

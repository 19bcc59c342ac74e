"""What can be said of differences over seeds: intervals, tests, corrections and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Literal, NamedTuple

Kind = Literal["t", "bootstrap"]
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean difference and where it lies with the stated confidence."""

    mean: float
    low: float
    high: float


def spread(values: Sequence[float]) -> float:
    """The sample's standard deviation, 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours minus theirs, pair by pair."""
    if len(ours) != len(theirs) or len(ours) < 2:
        raise ValueError(
            f"an interval needs two pairs or more, and got {len(ours)} and {len(theirs)} values"
        )
    return [a - b for a, b in zip(ours, theirs, strict=True)]


def interval(
    ours: Sequence[float], theirs: Sequence[float], kind: Kind = "t", level: float = 0.95
) -> Interval:
    """The interval of the mean difference of pairs, one a seed."""
    of = paired_interval if kind == "t" else bootstrap_interval
    return of(ours, theirs, level)


def paired_interval(
    ours: Sequence[float], theirs: Sequence[float], level: float = 0.95
) -> Interval:
    """Student's t interval of the mean difference of pairs."""
    from scipy.stats import t

    gains = differences(ours, theirs)
    centre = mean(gains)
    half = float(t.ppf((1 + level) / 2, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5
    return Interval(centre, centre - half, centre + half)


def bootstrap_interval(
    ours: Sequence[float], theirs: Sequence[float], level: float = 0.95
) -> Interval:
    """The percentile bootstrap of the mean difference of pairs (Efron, 1979).

    It assumes no shape, and with a handful of seeds it is too narrow: five pairs cannot show how
    far the sixth would lie. Resamples are drawn from a fixed seed, so the interval repeats.
    """
    import numpy as np

    gains = np.asarray(differences(ours, theirs))
    draws = np.random.default_rng(0).integers(len(gains), size=(RESAMPLES, len(gains)))
    low, high = np.quantile(gains[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(gains.mean()), float(low), float(high))


def p_value(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The paired t test's two-sided probability of such a difference where there is none."""
    from scipy.stats import t

    gains = differences(ours, theirs)
    centre, deviation = mean(gains), stdev(gains)
    if deviation == 0:
        return 1.0 if centre == 0 else 0.0
    return float(2 * t.sf(abs(centre) / (deviation / len(gains) ** 0.5), len(gains) - 1))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Probabilities corrected for how many there are, by name (Holm, 1979)."""
    ordered = sorted(values, key=values.__getitem__)
    corrected: dict[str, float] = {}
    worst = 0.0
    for place, name in enumerate(ordered):
        worst = max(worst, min(1.0, (len(ordered) - place) * values[name]))
        corrected[name] = worst
    return corrected


def mean_ranks(scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """The mean place of each, 1 the best, over the seeds that all of them have; ties share."""
    if not scores:
        return {}
    seeds = set.intersection(*(set(values) for values in scores.values()))
    if not seeds:
        return {}
    return {name: mean(place(name, scores, seed) for seed in seeds) for name in scores}


def place(name: str, scores: Mapping[str, Mapping[int, float]], seed: int) -> float:
    """One's place at one seed: how many are better, and half of those that are as good."""
    own = scores[name][seed]
    values = [others[seed] for others in scores.values()]
    return 1 + sum(v > own for v in values) + (sum(v == own for v in values) - 1) / 2

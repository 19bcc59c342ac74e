"""How the methods of a study change all scores, and what each kind of error costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from stillhouse.explain.phrases import COUNTS
from stillhouse.files import csv_text, write_text
from stillhouse.study.results import ArmResult, Study
from stillhouse.study.statistics import difference_interval

SCORES_FILE, ERRORS_FILE = "scores.csv", "errors.csv"
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Change:
    """A score of one arm, or the points of it that a kind of error costs."""

    method: str
    split: str
    name: str  # the score, or the kind of error
    seeds: int
    mean: float
    change: float | None = None  # against the control, at the seeds that both have
    low: float | None = None  # of its 95 % interval; None below two common seeds
    high: float | None = None


def score_changes(study: Study) -> list[Change]:
    """All scores of all arms but counts, after the last epoch, in their order."""
    return changes(study, lambda score: score[study.measured])


def error_changes(study: Study) -> list[Change]:
    """The kinds of errors of all arms whose results tell them apart, kinds in their order."""
    return changes(study, lambda score: score.get("errors", {}))


def changes(study: Study, read: Callable[[Mapping[str, Any]], Numbers]) -> list[Change]:
    """The changes of the numbers that are read from each result of a study."""
    rows = []
    for arm in study.arms:
        own, control = by_name(arm, read), by_name(study.arm(arm.control), read)
        for name, values in own.items():
            paired = {} if arm.is_control else change(study, values, control.get(name, {}))
            average = mean(values.values())
            rows.append(Change(arm.label, study.measured, name, len(values), average, **paired))
    return rows


def by_name(
    arm: ArmResult, read: Callable[[Mapping[str, Any]], Numbers]
) -> dict[str, dict[int, float]]:
    """Each number at each seed; empty without any."""
    found: dict[str, dict[int, float]] = {}
    for seed, score in arm.scores.items():
        for name, value in read(score).items():
            if name not in COUNTS and value is not None:
                found.setdefault(name, {})[seed] = float(value)
    return found


def change(
    study: Study, values: Mapping[int, float], baseline: Mapping[int, float]
) -> dict[str, float]:
    """The mean paired change with its interval, by the names of `Change`."""
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return {}
    pairs = [values[seed] for seed in seeds], [baseline[seed] for seed in seeds]
    if len(seeds) == 1:
        return {"change": pairs[0][0] - pairs[1][0]}
    interval = difference_interval(*pairs, study.kind)
    return {"change": interval.mean, "low": interval.low, "high": interval.high}


def write_changes(study: Study) -> list[Path]:
    """Write scores.csv, and errors.csv where runs tell kinds apart, into the study's folder."""
    paths = []
    for file, column, rows in (
        (SCORES_FILE, "score", score_changes(study)),
        (ERRORS_FILE, "kind", error_changes(study)),
    ):
        if rows:
            lines = [{column if k == "name" else k: v for k, v in asdict(r).items()} for r in rows]
            paths.append(study.folder / file)
            write_text(paths[-1], csv_text(lines))
    return paths

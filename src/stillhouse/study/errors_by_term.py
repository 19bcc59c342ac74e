"""What each kind of error costs in the runs of a study, and how methods change it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from stillhouse.files import csv_text, write_text
from stillhouse.study.results import ArmResult, Study
from stillhouse.study.statistics import difference_interval

ERRORS_FILE = "errors.csv"


@dataclass(frozen=True)
class ErrorRow:
    """One kind of error of one arm; points of the score that the kind costs, on the test split."""

    method: str
    kind: str
    seeds: int
    mean: float
    change: float | None = None  # against the control, at the seeds that both have
    low: float | None = None  # of its 95 % interval; None below two common seeds
    high: float | None = None


def error_rows(study: Study) -> list[ErrorRow]:
    """The rows of all arms whose results tell kinds of errors apart, kinds in their order."""
    return [row for arm in study.arms for row in arm_rows(study, arm)]


def arm_rows(study: Study, arm: ArmResult) -> list[ErrorRow]:
    """One row for each kind of error of an arm."""
    own, control = errors_by_seed(arm), errors_by_seed(study.arm(arm.control))
    return [
        ErrorRow(
            arm.label,
            kind,
            len(values),
            mean(values.values()),
            **({} if arm.is_control else change(study, values, control.get(kind, {}))),
        )
        for kind, values in own.items()
    ]


def errors_by_seed(arm: ArmResult) -> dict[str, dict[int, float]]:
    """The cost of each kind of error at each seed; empty without any."""
    found: dict[str, dict[int, float]] = {}
    for seed, score in arm.scores.items():
        for kind, cost in score.get("errors", {}).items():
            found.setdefault(kind, {})[seed] = float(cost)
    return found


def change(
    study: Study, values: Mapping[int, float], baseline: Mapping[int, float]
) -> dict[str, float]:
    """The mean paired change with its interval, by the names of `ErrorRow`."""
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return {}
    pairs = [values[seed] for seed in seeds], [baseline[seed] for seed in seeds]
    if len(seeds) == 1:
        return {"change": pairs[0][0] - pairs[1][0]}
    interval = difference_interval(*pairs, study.kind)
    return {"change": interval.mean, "low": interval.low, "high": interval.high}


def errors_csv(rows: Iterable[ErrorRow]) -> str:
    """One row for each method and kind of error."""
    return csv_text([asdict(row) for row in rows])


def write_errors(study: Study) -> Path | None:
    """Write errors.csv into the folder of the study; None where no run tells kinds apart."""
    rows = error_rows(study)
    if not rows:
        return None
    path = study.folder / ERRORS_FILE
    write_text(path, errors_csv(rows))
    return path

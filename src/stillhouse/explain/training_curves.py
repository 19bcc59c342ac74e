"""Score, losses, weights and learning rates of runs over their epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from stillhouse.explain.phrases import metric_name
from stillhouse.explain.section import LineChart, Series

MAX_POINTS = 200  # of a curve

Records = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl: kind, step, and values by name
_LABEL = "term/label"
_NOT_VALUES = ("kind", "step", "epoch")


def training_curves(
    runs: Mapping[str, Records],
    headline: str | None = None,
    epochs: Mapping[str, float] | None = None,
) -> tuple[LineChart, ...]:
    """Score, losses, gauges, loss weights and learning rates.

    `epochs` are the epochs of one step, by run; without that of each run the axis has steps.
    Quantities that do not change are left out, and so are scores if no run has several. Without a
    headline the first evaluated metric is the score. Terms of a task without a term called `label`
    cannot be distinguished from those of the method, and share a chart.
    """
    metric = headline or _headline(runs)
    labelled = any(_LABEL in names for names in (quantities(r, "train") for r in runs.values()))
    terms = "Distillation loss" if labelled else "Loss terms"
    score = f"{metric_name(metric)} on validation"
    known = epochs is not None and runs.keys() <= epochs.keys()
    axis = Axis("epoch", epochs) if epochs is not None and known else Axis("step", {})
    charts = (
        _chart(runs, axis, "evaluate", score, metric_name(metric), metric.__eq__),
        _chart(runs, axis, "train", "Label loss", "loss", _LABEL.__eq__),
        _chart(runs, axis, "train", terms, "loss", _is_other_term),
        *(
            _chart(runs, axis, "train", name[:1].upper() + name[1:], name, f"gauge/{name}".__eq__)
            for name in gauge_names(runs)
        ),
        _chart(runs, axis, "train", "Loss weight", "weight", _is_weight),
        _chart(runs, axis, "train", "Learning rate", "learning rate", _is_rate),
    )
    return tuple(chart for chart in charts if chart is not None)


class Axis(NamedTuple):
    """The horizontal axis: its unit, and the length of one step in that unit, by run."""

    unit: str
    step: Mapping[str, float]  # 1 for a run that is not there


def read_curve(records: Records, kind: str, name: str) -> tuple[list[float], list[float | None]]:
    """The steps and values of one quantity; a value that is not finite is None."""
    lines = [line for line in records if line.get("kind") == kind and name in line]
    return [float(line["step"]) for line in lines], [_number(line[name]) for line in lines]


def join_short_end(
    steps: Sequence[float], values: Sequence[float | None]
) -> tuple[Sequence[float], Sequence[float | None]]:
    """The last two points as their mean, if they are closer than half the usual distance.

    The end of a training is recorded whenever it comes, and two batches one step apart would be
    drawn as a spike.
    """
    if len(steps) < 3 or steps[-1] - steps[-2] > (steps[-2] - steps[-3]) / 2:
        return steps, values
    known = [value for value in values[-2:] if value is not None]
    mean = sum(known) / len(known) if known else None
    return [*steps[:-2], steps[-1]], [*values[:-2], mean]


def downsample(
    steps: Sequence[float], values: Sequence[float | None]
) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """At most 200 points: the mean of each group of neighbours, at the last step of the group.

    Groups differ in size by one at most. A last group of few values would be a spike, because its
    mean varies more.
    """
    count = min(len(steps), MAX_POINTS)
    ends = [len(steps) * place // max(1, count) for place in range(count + 1)]
    groups = [[v for v in values[i:j] if v is not None] for i, j in pairwise(ends)]
    last = tuple(steps[end - 1] for end in ends[1:])
    return last, tuple(sum(group) / len(group) if group else None for group in groups)


def gauge_names(runs: Mapping[str, Records]) -> tuple[str, ...]:
    """The quantities that methods recorded in any run, for example `temperature`."""
    names = (name for records in runs.values() for name in quantities(records, "train"))
    return tuple(dict.fromkeys(n.removeprefix("gauge/") for n in names if n.startswith("gauge/")))


def quantities(records: Records, kind: str) -> tuple[str, ...]:
    """The names of all quantities of a kind of line, in the order of their first line."""
    return tuple(dict.fromkeys(n for line in records if line.get("kind") == kind for n in line))


def _chart(
    runs: Mapping[str, Records],
    axis: Axis,
    kind: str,
    title: str,
    y: str,
    wanted: Callable[[str], bool],
) -> LineChart | None:
    series = []
    for run, records in runs.items():
        for name in filter(wanted, quantities(records, kind)):
            steps, values = read_curve(records, kind, name)
            known = any(value is not None for value in values)
            if known and (kind == "evaluate" or not _is_constant(values)):
                joined = join_short_end(steps, values) if kind == "train" else (steps, values)
                x, means = downsample(*joined)
                x = tuple(step * axis.step.get(run, 1.0) for step in x)
                series.append(Series(_series_name(run, name, runs), x, means))
    if all(len(one.x) < 2 for one in series):
        return None
    return LineChart(title, axis.unit, y, tuple(series))


def _series_name(run: str, name: str, runs: Mapping[str, Records]) -> str:
    """The run, and the quantity where runs may have several of a kind."""
    group, _, quantity = name.partition("/")
    if group not in ("term", "weight", "rate") or name == _LABEL:
        return run
    if group == "rate" and all(_rates(records) <= {name} for records in runs.values()):
        return run
    return quantity if len(runs) == 1 else f"{run}: {quantity}"


def _headline(runs: Mapping[str, Records]) -> str:
    names = (name for records in runs.values() for name in quantities(records, "evaluate"))
    return next((name for name in names if name not in _NOT_VALUES), "score")


def _is_other_term(name: str) -> bool:
    return name.startswith("term/") and name != _LABEL


def _is_weight(name: str) -> bool:
    return name.startswith("weight/")


def _rates(records: Records) -> set[str]:
    return set(filter(_is_rate, quantities(records, "train")))


def _is_rate(name: str) -> bool:
    return name.startswith("rate/")


def _is_constant(values: Iterable[float | None]) -> bool:
    known = [v for v in values if v is not None]
    return not known or max(known) == min(known)


def _number(value: Any) -> float | None:
    is_finite = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_finite else None

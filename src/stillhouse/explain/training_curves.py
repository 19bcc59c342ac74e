"""Score, losses, weights and learning rates of a run over its training steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stillhouse.explain.phrases import metric_name
from stillhouse.explain.section import LineChart, Series

MAX_POINTS = 200  # of a curve

Records = Sequence[Mapping[str, Any]]  # lines of metrics.jsonl: kind, step, and values by name
_LABEL = "term/label"
_NOT_VALUES = ("kind", "step", "epoch")


def training_curves(
    runs: Mapping[str, Records], headline: str | None = None
) -> tuple[LineChart, ...]:
    """Score, losses, gauges, loss weights and learning rates.

    Without a headline the first evaluated metric is the score. Terms of a task without a term
    called `label` cannot be distinguished from those of the method, and share a chart.
    """
    metric = headline or _headline(runs)
    labelled = any(_LABEL in names for names in (quantities(r, "train") for r in runs.values()))
    terms = "Distillation loss" if labelled else "Loss terms"
    score = f"{metric_name(metric)} on validation"
    charts = (
        _chart(runs, "evaluate", score, metric_name(metric), metric.__eq__),
        _chart(runs, "train", "Label loss", "loss", _LABEL.__eq__),
        _chart(runs, "train", terms, "loss", _is_other_term),
        *(
            _chart(runs, "train", name[:1].upper() + name[1:], name, f"gauge/{name}".__eq__)
            for name in gauge_names(runs)
        ),
        _chart(runs, "train", "Loss weight", "weight", _is_weight, only_changing=True),
        _chart(runs, "train", "Learning rate", "learning rate", _is_rate),
    )
    return tuple(chart for chart in charts if chart is not None)


def read_curve(records: Records, kind: str, name: str) -> tuple[list[float], list[float | None]]:
    """The steps and values of one quantity; a value that is not finite is None."""
    lines = [line for line in records if line.get("kind") == kind and name in line]
    return [float(line["step"]) for line in lines], [_number(line[name]) for line in lines]


def downsample(
    steps: Sequence[float], values: Sequence[float | None]
) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """At most 200 points: the mean of each group of neighbours, at the last step of the group."""
    size = -(-len(steps) // MAX_POINTS) or 1
    starts = range(0, len(steps), size)
    groups = [[v for v in values[i : i + size] if v is not None] for i in starts]
    last = tuple(steps[min(i + size, len(steps)) - 1] for i in starts)
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
    kind: str,
    title: str,
    y: str,
    wanted: Callable[[str], bool],
    only_changing: bool = False,
) -> LineChart | None:
    series = []
    for run, records in runs.items():
        for name in filter(wanted, quantities(records, kind)):
            steps, values = read_curve(records, kind, name)
            known = any(v is not None for v in values)
            if known and not (only_changing and _is_constant(values)):
                series.append(Series(_series_name(run, name, runs), *downsample(steps, values)))
    return LineChart(title, "step", y, tuple(series)) if series else None


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

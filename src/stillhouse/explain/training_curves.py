"""How temperature, weights, losses and the score moved while a run trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stillhouse.explain.section import Lines, Section, Series

POINTS = 200  # of a curve: more are averaged in groups

Records = Sequence[Mapping[str, Any]]  # lines of a run's record: kind, step, and values by name
_LABEL = "term/label"
_OWN = ("kind", "step", "epoch")


def section(runs: Mapping[str, Records], headline: str | None = None) -> Section | None:
    """The course of one run or of several, by name; None where nothing was recorded."""
    score = headline or _headline(runs)
    charts = curves(runs, score)
    if not charts:
        return None
    return Section("course", "Course of the training", _said(runs, score), (), charts)


def curves(runs: Mapping[str, Records], headline: str | None = None) -> tuple[Lines, ...]:
    """Score, losses, gauges, weights and rates in time; the headline is what is evaluated first."""
    score = headline or _headline(runs)
    charts = (
        _lines(runs, "evaluate", f"{score} on validation", score, score.__eq__),
        _lines(runs, "train", "Loss of the labels", "loss", _LABEL.__eq__),
        _lines(runs, "train", "Losses of the teaching", "loss", _teaches),
        *(_lines(runs, "train", name, name, f"gauge/{name}".__eq__) for name in gauges(runs)),
        _lines(runs, "train", "Weights that move", "weight", _weighs, moving=True),
        _lines(runs, "train", "Rates of learning", "rate", _rates),
    )
    return tuple(chart for chart in charts if chart is not None)


def curve(lines: Records, kind: str, name: str) -> tuple[list[float], list[float | None]]:
    """The steps and values of one quantity; what is no number is a gap."""
    found = [line for line in lines if line.get("kind") == kind and name in line]
    return [float(line["step"]) for line in found], [_number(line[name]) for line in found]


def thinned(
    steps: Sequence[float], values: Sequence[float | None]
) -> tuple[tuple[float, ...], tuple[float | None, ...]]:
    """At most 200 points: the mean of a group of neighbours, at the last step of the group."""
    size = -(-len(steps) // POINTS) or 1
    starts = range(0, len(steps), size)
    groups = [[v for v in values[i : i + size] if v is not None] for i in starts]
    last = tuple(steps[min(i + size, len(steps)) - 1] for i in starts)
    return last, tuple(sum(group) / len(group) if group else None for group in groups)


def gauges(runs: Mapping[str, Records]) -> tuple[str, ...]:
    """What was gauged in any run, a temperature for instance."""
    names = (name for lines in runs.values() for name in names_of(lines, "train"))
    return tuple(dict.fromkeys(n.removeprefix("gauge/") for n in names if n.startswith("gauge/")))


def names_of(lines: Records, kind: str) -> tuple[str, ...]:
    """Every quantity of a kind of line, in the order of first mention."""
    return tuple(dict.fromkeys(n for line in lines if line.get("kind") == kind for n in line))


def _lines(
    runs: Mapping[str, Records],
    kind: str,
    title: str,
    quantity: str,
    wanted: Callable[[str], bool],
    moving: bool = False,
) -> Lines | None:
    series = []
    for run, lines in runs.items():
        for name in filter(wanted, names_of(lines, kind)):
            steps, values = curve(lines, kind, name)
            if any(v is not None for v in values) and not (moving and _still(values)):
                series.append(Series(_called(run, name, runs), *thinned(steps, values)))
    return Lines(title, "step", quantity, tuple(series)) if series else None


def _called(run: str, name: str, runs: Mapping[str, Records]) -> str:
    """The name of a curve: that of the run, that of the quantity where a run has several."""
    group, _, own = name.partition("/")
    if group not in ("term", "weight", "rate") or name == _LABEL:
        return run
    return own if len(runs) == 1 else f"{run}: {own}"


def _said(runs: Mapping[str, Records], headline: str) -> tuple[str, ...]:
    said = []
    for run, lines in runs.items():
        steps, values = curve(lines, "evaluate", headline)
        known = [(v, s) for v, s in zip(values, steps, strict=True) if v is not None]
        if known:
            best = max(known)
            said.append(
                f"{run}: {headline} ends at {known[-1][0]:.1f}; its best was {best[0]:.1f}, at "
                f"step {best[1]:,.0f}."
            )
        for name in filter(_moves, names_of(lines, "train")):
            said += _moved(run, name, curve(lines, "train", name)[1])
    if any(_counted(lines) > POINTS for lines in runs.values()):
        said.append("A curve of many points is averaged in groups of neighbours.")
    return tuple(said)


def _moved(run: str, name: str, values: Iterable[float | None]) -> list[str]:
    known = [v for v in values if v is not None]
    if not known or (_still(known) and name.startswith("weight/")):
        return []
    kind, _, own = name.partition("/")
    what = own if kind == "gauge" else f"the weight of {own}"
    if _still(known):
        return [f"{run}: {what} stays at {known[0]:.3g}."]
    return [f"{run}: {what} goes from {known[0]:.3g} to {known[-1]:.3g}."]


def _headline(runs: Mapping[str, Records]) -> str:
    names = (name for lines in runs.values() for name in names_of(lines, "evaluate"))
    return next((name for name in names if name not in _OWN), "score")


def _counted(lines: Records) -> int:
    return sum(line.get("kind") == "train" for line in lines)


def _teaches(name: str) -> bool:
    return name.startswith("term/") and name != _LABEL


def _weighs(name: str) -> bool:
    return name.startswith("weight/")


def _rates(name: str) -> bool:
    return name.startswith("rate/")


def _moves(name: str) -> bool:
    return name.startswith(("gauge/", "weight/"))


def _still(values: Iterable[float | None]) -> bool:
    known = [v for v in values if v is not None]
    return not known or max(known) == min(known)


def _number(value: Any) -> float | None:
    whole = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if whole else None

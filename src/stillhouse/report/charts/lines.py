"""Curves: gaps where there is no value, a band or whiskers where there is an error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stillhouse.explain.section import Lines, Series
from stillhouse.report.charts import svg
from stillhouse.report.charts.canvas import SOFT, plane
from stillhouse.report.charts.drawing import NOTHING, Drawing, Key
from stillhouse.report.charts.styles import Look, looks
from stillhouse.report.axis_scale import Scale, finite, fitting, linear
from stillhouse.report.formatting import clipped, listed, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 12  # points, of which each has a marker
Points = list[tuple[float, float, float]]  # x, y, half of the whisker; NaN is a gap


def draw(chart: Lines, ident: str) -> Drawing:
    """The curves of a chart."""
    found = [points(series) for series in chart.series]
    known = [point for each in found for point in each if not math.isnan(point[1])]
    if not known:
        return NOTHING
    x, y = _scales(chart, known)
    axes = plane(x, y, chart.x, chart.y)
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        axes.plot([low, high], [low, high], color=SOFT, linewidth=0.8)
    styles = looks([series.name for series in chart.series])
    for each, look in zip(found, styles, strict=True):
        _curve(axes, each, look, y)
    shown = zip(chart.series, styles, found, strict=True)
    keys = tuple(
        Key(series.name, look, marked=len(each) <= FEW)
        for series, look, each in shown
        if finite(point[1] for point in each)
    )
    figure = axes.get_figure(root=True)
    assert figure is not None
    return Drawing((svg.inline(figure, ident, label(chart, found)),), keys)


def points(series: Series) -> Points:
    """The points of a series that have a place, in order; a value that is none is NaN."""
    found = []
    for place, (x, y) in enumerate(zip(series.x, series.y, strict=False)):
        half = series.error[place] if place < len(series.error) else 0.0
        value = y if y is not None and finite([y]) else math.nan
        if finite([x]):
            found.append((float(x), float(value), abs(half) if finite([half]) else 0.0))
    return found


def label(chart: Lines, found: list[Points]) -> str:
    """What the chart shows, for who cannot see it."""
    ends = []
    for series, each in zip(chart.series, found, strict=True):
        if known := finite(point[1] for point in each):
            ends.append(f"{clipped(series.name, 60)} ends at {short(known[-1])}")
    return f"{chart.title}. Lines of {chart.y} over {chart.x}: {listed(ends)}."


def _scales(chart: Lines, known: Points) -> tuple[Scale, Scale]:
    across = [x for x, _, _ in known]
    up = [end for _, y, half in known for end in (y - half, y + half)]
    if chart.diagonal:
        return linear([*across, *up], margin=0.02), linear([*across, *up])
    return linear(across, margin=0.01), fitting(up)


def _curve(axes: Axes, each: Points, look: Look, scale: Scale) -> None:
    if not each:
        return
    x, y, half = zip(*each, strict=True)
    alone = _alone(y)
    few = len(each) <= FEW
    axes.plot(
        x, y, color=look.colour, linewidth=1.6, linestyle=(0, look.dash) if look.dash else "-"
    )
    if few or alone:
        marked = list(range(len(y))) if few else alone
        axes.plot(
            [x[i] for i in marked],
            [y[i] for i in marked],
            linestyle="",
            marker=look.marker,
            markersize=4.5 if few else 3,
            markeredgewidth=0,
            color=look.colour,
        )
    if any(half):
        _errors(axes, each, look, few, scale)


def _alone(y: tuple[float, ...]) -> list[int]:
    """Points without a neighbour, which a line does not show."""
    gaps = [True, *map(math.isnan, y), True]
    return [i for i in range(len(y)) if gaps[i] and not gaps[i + 1] and gaps[i + 2]]


def _errors(axes: Axes, each: Points, look: Look, few: bool, scale: Scale) -> None:
    x = [place for place, _, _ in each]
    low = [max(y - half, scale.low) if not math.isnan(y) else y for _, y, half in each]
    high = [y + half for _, y, half in each]
    if few:
        # One path for all whiskers, lifted where a NaN stands between two.
        across = [v for place in x for v in (place, place, math.nan)]
        up = [v for pair in zip(low, high, strict=True) for v in (*pair, math.nan)]
        axes.plot(across, up, color=look.colour, linewidth=1.2)
    else:
        shown = [not math.isnan(value) for value in low]
        axes.fill_between(x, low, high, where=shown, color=look.colour, alpha=0.15, linewidth=0)

"""Line charts: gaps for missing values, a band or error bars for errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from stillhouse.explain.phrases import join_names
from stillhouse.explain.section import LineChart, Series
from stillhouse.report.axis_scale import AxisScale, auto_scale, finite_values, linear_scale
from stillhouse.report.charts.canvas import SOFT, plot_axes
from stillhouse.report.charts.drawing import EMPTY_DRAWING, Drawing, LegendEntry
from stillhouse.report.charts.styles import SeriesStyle, series_styles
from stillhouse.report.charts.svg import inline_svg
from stillhouse.report.formatting import format_short, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 12  # points: up to so many have markers
Points = list[tuple[float, float, float]]  # x, y, half of the error bar; y is NaN for a gap


def draw_lines(chart: LineChart, ident: str) -> Drawing:
    """The curves of a line chart."""
    curves = [series_points(series) for series in chart.series]
    known = [point for each in curves for point in each if not math.isnan(point[1])]
    if not known:
        return EMPTY_DRAWING
    x, y = _scales(chart, known)
    axes = plot_axes(x, y, chart.x, chart.y)
    if chart.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        axes.plot([low, high], [low, high], color=SOFT, linewidth=0.8)
    styles = series_styles([series.name for series in chart.series])
    for each, style in zip(curves, styles, strict=True):
        _curve(axes, each, style, y)
    shown = zip(chart.series, styles, curves, strict=True)
    legend = tuple(
        LegendEntry(series.name, style, marked=len(each) <= FEW)
        for series, style, each in shown
        if finite_values(point[1] for point in each)
    )
    figure = axes.get_figure(root=True)
    assert figure is not None
    return Drawing((inline_svg(figure, ident, _label(chart, curves)),), legend)


def series_points(series: Series) -> Points:
    """The points with a finite x, in order; y is NaN where it is not finite."""
    points = []
    for place, (x, y) in enumerate(zip(series.x, series.y, strict=False)):
        half = series.error[place] if place < len(series.error) else 0.0
        value = y if y is not None and finite_values([y]) else math.nan
        if finite_values([x]):
            error = abs(half) if finite_values([half]) else 0.0
            points.append((float(x), float(value), error))
    return points


def _label(chart: LineChart, curves: list[Points]) -> str:
    ends = []
    for series, each in zip(chart.series, curves, strict=True):
        if known := finite_values(point[1] for point in each):
            ends.append(f"{truncate(series.name, 60)} ends at {format_short(known[-1])}")
    return f"{chart.title}. Line chart of {chart.y} over {chart.x}: {join_names(ends)}."


def _scales(chart: LineChart, known: Points) -> tuple[AxisScale, AxisScale]:
    across = [x for x, _, _ in known]
    up = [end for _, y, half in known for end in (y - half, y + half)]
    if chart.diagonal:
        return linear_scale([*across, *up], margin=0.02), linear_scale([*across, *up])
    return linear_scale(across, margin=0.01), auto_scale(up)


def _curve(axes: Axes, each: Points, style: SeriesStyle, scale: AxisScale) -> None:
    if not each:
        return
    x, y, half = zip(*each, strict=True)
    isolated = _isolated(y)
    few = len(each) <= FEW
    axes.plot(
        x, y, color=style.colour, linewidth=1.6, linestyle=(0, style.dash) if style.dash else "-"
    )
    if few or isolated:
        marked = list(range(len(y))) if few else isolated
        axes.plot(
            [x[i] for i in marked],
            [y[i] for i in marked],
            linestyle="",
            marker=style.marker,
            markersize=4.5 if few else 3,
            markeredgewidth=0,
            color=style.colour,
        )
    if any(half):
        _errors(axes, each, style, few, scale)


def _isolated(y: tuple[float, ...]) -> list[int]:
    """Points between two gaps, which a line does not show."""
    gaps = [True, *map(math.isnan, y), True]
    return [i for i in range(len(y)) if gaps[i] and not gaps[i + 1] and gaps[i + 2]]


def _errors(axes: Axes, each: Points, style: SeriesStyle, few: bool, scale: AxisScale) -> None:
    x = [place for place, _, _ in each]
    low = [max(y - half, scale.low) if not math.isnan(y) else y for _, y, half in each]
    high = [y + half for _, y, half in each]
    if few:
        # One path for all error bars, interrupted by NaN.
        across = [v for place in x for v in (place, place, math.nan)]
        up = [v for pair in zip(low, high, strict=True) for v in (*pair, math.nan)]
        axes.plot(across, up, color=style.colour, linewidth=1.2)
    else:
        shown = [not math.isnan(value) for value in low]
        axes.fill_between(x, low, high, where=shown, color=style.colour, alpha=0.15, linewidth=0)

"""Scatter plots, one panel per series, coloured by group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.explain.section import ScatterPlot, Series
from stillhouse.report.axis_scale import finite_values, value_range
from stillhouse.report.charts.canvas import INK, LETTER, LINE, add_text, bare_axes, blank_figure
from stillhouse.report.charts.colormap import oklab_to_srgb
from stillhouse.report.charts.drawing import EMPTY_DRAWING, Drawing, LegendEntry
from stillhouse.report.charts.styles import MARKERS, numbered_style
from stillhouse.report.charts.svg import inline_svg
from stillhouse.report.formatting import truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 1500  # per panel
MAX_LEGEND = 12  # groups with an entry in the legend
SIDE, TITLE = 190.0, 18.0  # of a panel, and height of its title
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # so that the hues of successive groups differ
Points = list[tuple[float, float, int]]  # x, y, group


def draw_scatter(chart: ScatterPlot, ident: str) -> Drawing:
    """The panels of a scatter plot."""
    pairs = ((series, _finite_points(series)) for series in chart.series)
    shown = [(series, points) for series, points in pairs if points]
    if not shown:
        return EMPTY_DRAWING
    groups = sorted({group for _, points in shown for _, _, group in points})
    panels = tuple(
        _panel(chart, series, points, groups, f"{ident}p{place}")
        for place, (series, points) in enumerate(shown, 1)
    )
    note = "Each colour is a class." if len(groups) > MAX_LEGEND else ""
    legend = _legend(chart, groups) if 1 < len(groups) <= MAX_LEGEND else ()
    return Drawing(panels, legend, note)


def group_style(place: int, many: bool) -> tuple[str, str]:
    """Colour and marker of a group."""
    if not many:
        style = numbered_style(place)
        return style.colour, style.marker
    angle = place * GOLDEN_ANGLE
    hue = np.array([[0.66, 0.13 * math.cos(angle), 0.13 * math.sin(angle)]])
    red, green, blue = (oklab_to_srgb(hue)[0] * 255).round().astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}", MARKERS[place % len(MARKERS)]


def _finite_points(series: Series) -> Points:
    """The points with finite coordinates, thinned out evenly where there are very many."""
    known = [
        (x, y, series.group[i] if i < len(series.group) else 0)
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=False))
        if y is not None and len(finite_values((x, y))) == 2
    ]
    return known[:: math.ceil(len(known) / MAX_POINTS) or 1]


def _panel(
    chart: ScatterPlot, series: Series, points: Points, groups: Sequence[int], ident: str
) -> str:
    figure = blank_figure(SIDE + TITLE, SIDE)
    _draw_points(bare_axes(figure, 1, 1, SIDE - 2, SIDE - 2), points, groups)
    add_text(figure, 0, SIDE + 6, truncate(series.name, int(SIDE / LETTER)), color=INK)
    present = len({group for _, _, group in points})
    groups_text = f"{present} {'group' if present == 1 else 'groups'}"
    label = (
        f"{chart.title}, {series.name}. Scatter plot of {len(points):,} points in {groups_text}."
    )
    return inline_svg(figure, ident, label)


def _draw_points(drawn: Axes, points: Points, groups: Sequence[int]) -> None:
    for place, group in enumerate(groups):
        members = [(x, y) for x, y, g in points if g == group]
        if members:
            colour, marker = group_style(place, len(groups) > MAX_LEGEND)
            x, y = zip(*members, strict=True)
            size = 2.6 if len(points) > 100 else 4
            drawn.plot(x, y, marker, markersize=size, markeredgewidth=0, color=colour)
    _square(drawn, points)
    drawn.set_xticks([])
    drawn.set_yticks([])
    for spine in drawn.spines.values():
        spine.set(visible=True, color=LINE, linewidth=0.8)


def _square(drawn: Axes, points: Points) -> None:
    """Equal scales on both axes."""
    x, y = value_range(x for x, _, _ in points), value_range(y for _, y, _ in points)
    half = 0.54 * max(x[1] - x[0], y[1] - y[0])
    drawn.set_xlim(sum(x) / 2 - half, sum(x) / 2 + half)
    drawn.set_ylim(sum(y) / 2 - half, sum(y) / 2 + half)


def _legend(chart: ScatterPlot, groups: Sequence[int]) -> tuple[LegendEntry, ...]:
    names = dict(enumerate(chart.groups))
    return tuple(
        LegendEntry(names.get(group, f"group {group}"), numbered_style(place), "point")
        for place, group in enumerate(groups)
    )

"""Points in a plane, a panel a series; small classes have shapes, many have a hue each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.explain.section import Cloud, Series
from stillhouse.report.charts import svg
from stillhouse.report.charts.canvas import INK, LETTER, LINE, axes, blank, write
from stillhouse.report.charts.drawing import NOTHING, Drawing, Key
from stillhouse.report.charts.styles import MARKERS, other
from stillhouse.report.charts.colormap import rgb
from stillhouse.report.axis_scale import finite, span
from stillhouse.report.formatting import clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 1500  # points a panel
NAMED = 12  # groups, of which each has an entry in the legend
SIDE, TITLE = 190.0, 18.0  # of a panel, and of the room for its name
GOLDEN = math.pi * (3 - math.sqrt(5))  # neighbours on a circle of hues lie far apart
Points = list[tuple[float, float, int]]  # x, y, group


def draw(chart: Cloud, ident: str) -> Drawing:
    """The panels of a chart."""
    found = [(series, _points(series)) for series in chart.series]
    shown = [(series, points) for series, points in found if points]
    if not shown:
        return NOTHING
    groups = sorted({group for _, points in shown for _, _, group in points})
    panels = tuple(
        _panel(chart, series, points, groups, f"{ident}p{place}")
        for place, (series, points) in enumerate(shown, 1)
    )
    note = "Each colour is a class." if len(groups) > NAMED else ""
    keys = _keys(chart, groups) if 1 < len(groups) <= NAMED else ()
    return Drawing(panels, keys, note)


def look(place: int, many: bool) -> tuple[str, str]:
    """Colour and shape of a group."""
    if not many:
        found = other(place)
        return found.colour, found.marker
    angle = place * GOLDEN
    hue = np.array([[0.66, 0.13 * math.cos(angle), 0.13 * math.sin(angle)]])
    red, green, blue = (rgb(hue)[0] * 255).round().astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}", MARKERS[place % len(MARKERS)]


def _points(series: Series) -> Points:
    """Those that have a place; of very many, evenly chosen ones."""
    known = [
        (x, y, series.group[i] if i < len(series.group) else 0)
        for i, (x, y) in enumerate(zip(series.x, series.y, strict=False))
        if y is not None and len(finite((x, y))) == 2
    ]
    return known[:: math.ceil(len(known) / MOST) or 1]


def _panel(chart: Cloud, series: Series, points: Points, groups: Sequence[int], ident: str) -> str:
    figure = blank(SIDE + TITLE, SIDE)
    _draw_points(axes(figure, 1, 1, SIDE - 2, SIDE - 2), points, groups)
    write(figure, 0, SIDE + 6, clipped(series.name, int(SIDE / LETTER)), color=INK)
    there = len({group for _, _, group in points})
    said = f"{len(points):,} points in a plane, in {there} {'group' if there == 1 else 'groups'}"
    return svg.inline(figure, ident, f"{chart.title}, {series.name}. {said}.")


def _draw_points(drawn: Axes, points: Points, groups: Sequence[int]) -> None:
    for place, group in enumerate(groups):
        own = [(x, y) for x, y, g in points if g == group]
        if own:
            colour, marker = look(place, len(groups) > NAMED)
            x, y = zip(*own, strict=True)
            size = 2.6 if len(points) > 100 else 4
            drawn.plot(x, y, marker, markersize=size, markeredgewidth=0, color=colour)
    _square(drawn, points)
    drawn.set_xticks([])
    drawn.set_yticks([])
    for spine in drawn.spines.values():
        spine.set(visible=True, color=LINE, linewidth=0.8)


def _square(drawn: Axes, points: Points) -> None:
    """One length means the same in both directions."""
    x, y = span(x for x, _, _ in points), span(y for _, y, _ in points)
    half = 0.54 * max(x[1] - x[0], y[1] - y[0])
    drawn.set_xlim(sum(x) / 2 - half, sum(x) / 2 + half)
    drawn.set_ylim(sum(y) / 2 - half, sum(y) / 2 + half)


def _keys(chart: Cloud, groups: Sequence[int]) -> tuple[Key, ...]:
    names = dict(enumerate(chart.groups))
    return tuple(
        Key(names.get(group, f"group {group}"), other(place), "point")
        for place, group in enumerate(groups)
    )

"""Bars: lying where each label can be read beside its own, upright where there are many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stillhouse.explain.section import Bars
from stillhouse.report.charts import svg
from stillhouse.report.charts.canvas import (
    INK,
    LETTER,
    LINE,
    SOFT,
    WIDTH,
    axes,
    blank,
    plane,
    write,
)
from stillhouse.report.charts.drawing import NOTHING, Drawing, Key
from stillhouse.report.charts.lines import points
from stillhouse.report.charts.styles import Look, looks
from stillhouse.report.axis_scale import Scale, around, gap, linear
from stillhouse.report.formatting import alike, clipped, listed, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 40  # bars, more of which stand upright
LETTERS = 24  # of a label
FILLED = 0.8  # of the room of a label: the rest parts it from the next


class Bar(NamedTuple):
    """One bar: which label and series it has, where it stands, and how far it reaches."""

    label: int
    series: int
    place: float
    value: float
    half: float


def draw(chart: Bars, ident: str) -> Drawing:
    """The bars of a chart."""
    found = list(_bars(chart))
    if not found:
        return NOTHING
    styles = looks([series.name for series in chart.series])
    lying = len(chart.labels) * len(chart.series) <= FEW
    figure = (_lying if lying else _upright)(chart, found, styles)
    shown = {bar.series for bar in found}
    keys = [Key(s.name, styles[i], "area") for i, s in enumerate(chart.series) if i in shown]
    return Drawing((svg.inline(figure, ident, _label(chart, found)),), tuple(keys))


def _bars(chart: Bars) -> Iterator[Bar]:
    width = FILLED / max(1, len(chart.series))
    for index, series in enumerate(chart.series):
        offset = (index - (len(chart.series) - 1) / 2) * width
        for x, y, half in points(series):
            # A place beyond the labels has no name, and one far beyond no room.
            if not math.isnan(y) and 0 <= round(x) < len(chart.labels):
                yield Bar(round(x), index, x + offset, y, half)


def _label(chart: Bars, found: Sequence[Bar]) -> str:
    said = [
        f"{clipped(chart.labels[bar.label], 60)}"
        f"{', ' + clipped(chart.series[bar.series].name, 60) if len(chart.series) > 1 else ''} "
        f"{short(bar.value)}"
        for bar in found
    ]
    return f"{chart.title}. Bars of {chart.y}: {listed(said, 6)}."


def _ends(found: Sequence[Bar]) -> list[float | None]:
    return [0.0, *(end for bar in found for end in (bar.value - bar.half, bar.value + bar.half))]


def _lying(chart: Bars, found: Sequence[Bar], styles: Sequence[Look]) -> Figure:
    row = 22.0 if len(chart.series) == 1 else 15.0 * len(chart.series) + 8
    rows, scale = len(chart.labels), around(_ends(found), count=4)
    names = [clipped(label, LETTERS) for label in chart.labels]
    left = 10 + LETTER * max(map(len, names))
    top, bottom = 22.0, 18.0
    # Values are written beside the bars that reach farthest, inside of what is kept free.
    right = 12 + LETTER * max(map(len, alike([bar.value for bar in found])))
    figure = blank(top + bottom + row * rows)
    drawn = axes(figure, left, bottom, WIDTH - left - right, row * rows)
    drawn.set_xlim(scale.low, scale.high)
    drawn.set_ylim(rows - 0.5, -0.5)
    drawn.set_xticks(scale.ticks, scale.labels)
    drawn.set_yticks(range(rows), names)
    drawn.grid(axis="x", color=LINE, linewidth=0.7)
    drawn.set_axisbelow(True)
    height = FILLED / len(chart.series)
    for index, look in enumerate(styles):
        own = [bar for bar in found if bar.series == index]
        drawn.barh([b.place for b in own], [b.value for b in own], height, color=look.colour)
    drawn.axvline(0, color=SOFT, linewidth=0.8)
    _whiskers(drawn, found, lying=True)
    _values(drawn, found)
    write(figure, 0, top + bottom + row * rows - 11, chart.y)
    return figure


def _values(drawn: Axes, found: Sequence[Bar]) -> None:
    """Write each value at the end of its bar; below zero, on the free side."""
    for bar, text in zip(found, alike([bar.value for bar in found]), strict=True):
        end = max(0.0, bar.value + bar.half)
        drawn.annotate(
            text,
            (end, bar.place),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            annotation_clip=False,
        )


def _upright(chart: Bars, found: Sequence[Bar], styles: Sequence[Look]) -> Figure:
    count = len(chart.labels)
    every = int(gap(0, count, 8, whole=True))
    ticks = tuple(float(i) for i in range(0, count, every))
    names = tuple(clipped(chart.labels[int(i)], 8) for i in ticks)
    drawn = plane(Scale(-0.6, count - 0.4, ticks, names), _value_scale(found), "", chart.y)
    width = FILLED / len(chart.series)
    for index, look in enumerate(styles):
        own = [bar for bar in found if bar.series == index]
        drawn.bar([b.place for b in own], [b.value for b in own], width, color=look.colour)
    drawn.axhline(0, color=SOFT, linewidth=0.8)
    _whiskers(drawn, found, lying=False)
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return figure


def _value_scale(found: Sequence[Bar]) -> Scale:
    scale = linear(_ends(found))
    if scale.low < 0 and min(bar.value - bar.half for bar in found) >= 0:
        return Scale(0.0, scale.high, tuple(t for t in scale.ticks if t >= 0), scale.labels)
    return scale


def _whiskers(drawn: Axes, found: Sequence[Bar], lying: bool) -> None:
    along, across = [], []
    for bar in found:
        if bar.half:
            along += [bar.value - bar.half, bar.value + bar.half, math.nan]
            across += [bar.place, bar.place, math.nan]
    if along:
        x, y = (along, across) if lying else (across, along)
        drawn.plot(x, y, color=INK, linewidth=1.1)

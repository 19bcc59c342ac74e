"""Bar charts: horizontal with a label and value per bar, vertical for many bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stillhouse.explain.phrases import join_names
from stillhouse.explain.section import BarChart
from stillhouse.report.axis_scale import AxisScale, enclosing_scale, linear_scale, tick_step
from stillhouse.report.charts.canvas import (
    INK,
    LETTER,
    LINE,
    SOFT,
    WIDTH,
    add_text,
    bare_axes,
    blank_figure,
    plot_axes,
)
from stillhouse.report.charts.drawing import EMPTY_DRAWING, Drawing, LegendEntry
from stillhouse.report.charts.lines import series_points
from stillhouse.report.charts.styles import SeriesStyle, series_styles
from stillhouse.report.charts.svg import inline_svg
from stillhouse.report.formatting import format_alike, format_short, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 40  # bars: more of them are vertical
MAX_LABEL = 24  # letters
FILLED = 0.8  # of the space of a label; the rest separates it from the next


class PlacedBar(NamedTuple):
    """One bar: the index of its label and series, its position, its value and half its error."""

    label: int
    series: int
    place: float
    value: float
    half: float


def draw_bars(chart: BarChart, ident: str) -> Drawing:
    """The bars of a bar chart."""
    bars = list(_bars(chart))
    if not bars:
        return EMPTY_DRAWING
    styles = series_styles([series.name for series in chart.series])
    horizontal = len(chart.labels) * len(chart.series) <= FEW
    figure = (_horizontal if horizontal else _vertical)(chart, bars, styles)
    shown = {bar.series for bar in bars}
    legend = tuple(
        LegendEntry(s.name, styles[i], "area") for i, s in enumerate(chart.series) if i in shown
    )
    return Drawing((inline_svg(figure, ident, _label(chart, bars)),), legend)


def _bars(chart: BarChart) -> Iterator[PlacedBar]:
    width = FILLED / max(1, len(chart.series))
    for index, series in enumerate(chart.series):
        offset = (index - (len(chart.series) - 1) / 2) * width
        for x, y, half in series_points(series):
            # a position without a label is not drawn
            if not math.isnan(y) and 0 <= round(x) < len(chart.labels):
                yield PlacedBar(round(x), index, x + offset, y, half)


def _label(chart: BarChart, bars: Sequence[PlacedBar]) -> str:
    texts = [
        f"{truncate(chart.labels[bar.label], 60)}"
        f"{', ' + truncate(chart.series[bar.series].name, 60) if len(chart.series) > 1 else ''} "
        f"{format_short(bar.value)}"
        for bar in bars
    ]
    return f"{chart.title}. Bar chart of {chart.y}: {join_names(texts, 6)}."


def _ends(bars: Sequence[PlacedBar]) -> list[float | None]:
    return [0.0, *(end for bar in bars for end in (bar.value - bar.half, bar.value + bar.half))]


def _horizontal(
    chart: BarChart, bars: Sequence[PlacedBar], styles: Sequence[SeriesStyle]
) -> Figure:
    row = 22.0 if len(chart.series) == 1 else 15.0 * len(chart.series) + 8
    rows, scale = len(chart.labels), enclosing_scale(_ends(bars), count=4)
    names = [truncate(label, MAX_LABEL) for label in chart.labels]
    left = 10 + LETTER * max(map(len, names))
    top, bottom = 22.0, 18.0
    # room for the values at the ends of the longest bars
    right = 12 + LETTER * max(map(len, format_alike([bar.value for bar in bars])))
    figure = blank_figure(top + bottom + row * rows)
    drawn = bare_axes(figure, left, bottom, WIDTH - left - right, row * rows)
    drawn.set_xlim(scale.low, scale.high)
    drawn.set_ylim(rows - 0.5, -0.5)
    drawn.set_xticks(scale.ticks, scale.labels)
    drawn.set_yticks(range(rows), names)
    drawn.grid(axis="x", color=LINE, linewidth=0.7)
    drawn.set_axisbelow(True)
    height = FILLED / len(chart.series)
    for index, style in enumerate(styles):
        places, values = _of_series(bars, index)
        drawn.barh(places, values, height, color=style.colour)
    drawn.axvline(0, color=SOFT, linewidth=0.8)
    _error_bars(drawn, bars, horizontal=True)
    _values(drawn, bars)
    add_text(figure, 0, top + bottom + row * rows - 11, chart.y)
    return figure


def _of_series(bars: Sequence[PlacedBar], index: int) -> tuple[list[float], list[float]]:
    """Positions and values of the bars of one series."""
    of_series = [bar for bar in bars if bar.series == index]
    return [bar.place for bar in of_series], [bar.value for bar in of_series]


def _values(drawn: Axes, bars: Sequence[PlacedBar]) -> None:
    """Write each value at the end of its bar, that of a negative bar right of zero."""
    for bar, text in zip(bars, format_alike([bar.value for bar in bars]), strict=True):
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


def _vertical(chart: BarChart, bars: Sequence[PlacedBar], styles: Sequence[SeriesStyle]) -> Figure:
    count = len(chart.labels)
    every = int(tick_step(0, count, 8, whole=True))
    ticks = tuple(float(i) for i in range(0, count, every))
    names = tuple(truncate(chart.labels[int(i)], 8) for i in ticks)
    drawn = plot_axes(AxisScale(-0.6, count - 0.4, ticks, names), _value_scale(bars), "", chart.y)
    width = FILLED / len(chart.series)
    for index, style in enumerate(styles):
        places, values = _of_series(bars, index)
        drawn.bar(places, values, width, color=style.colour)
    drawn.axhline(0, color=SOFT, linewidth=0.8)
    _error_bars(drawn, bars, horizontal=False)
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return figure


def _value_scale(bars: Sequence[PlacedBar]) -> AxisScale:
    scale = linear_scale(_ends(bars))
    if scale.low < 0 and min(bar.value - bar.half for bar in bars) >= 0:
        return AxisScale(0.0, scale.high, tuple(t for t in scale.ticks if t >= 0), scale.labels)
    return scale


def _error_bars(drawn: Axes, bars: Sequence[PlacedBar], horizontal: bool) -> None:
    along, across = [], []
    for bar in bars:
        if bar.half:
            along += [bar.value - bar.half, bar.value + bar.half, math.nan]
            across += [bar.place, bar.place, math.nan]
    if along:
        x, y = (along, across) if horizontal else (across, along)
        drawn.plot(x, y, color=INK, linewidth=1.1)

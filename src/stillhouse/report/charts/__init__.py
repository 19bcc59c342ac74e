"""Charts of a diagnosis as SVG for the inside of a page."""

from __future__ import annotations

from typing import assert_never

from stillhouse.explain.section import BarChart, DensityPlot, Heatmap, LineChart, ScatterPlot
from stillhouse.report.charts.bars import draw_bars
from stillhouse.report.charts.canvas import chart_style
from stillhouse.report.charts.density import draw_density
from stillhouse.report.charts.drawing import Drawing
from stillhouse.report.charts.heatmap import draw_heatmap
from stillhouse.report.charts.lines import draw_lines
from stillhouse.report.charts.scatter import draw_scatter

Drawable = LineChart | BarChart | Heatmap | ScatterPlot | DensityPlot


def draw_chart(chart: Drawable, ident: str) -> Drawing:
    """The drawing of one chart; every id in it starts with `ident`, unique on the page."""
    with chart_style():
        return _drawn(chart, ident)


def _drawn(chart: Drawable, ident: str) -> Drawing:
    match chart:
        case LineChart():
            return draw_lines(chart, ident)
        case BarChart():
            return draw_bars(chart, ident)
        case Heatmap():
            return draw_heatmap(chart, ident)
        case ScatterPlot():
            return draw_scatter(chart, ident)
        case DensityPlot():
            return draw_density(chart, ident)
        case _:
            assert_never(chart)

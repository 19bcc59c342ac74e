"""Density plots: contours around 50 % and 90 % of the samples of each network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.explain.phrases import join_names
from stillhouse.explain.section import DensityPlot, Histogram2D
from stillhouse.report.axis_scale import linear_scale
from stillhouse.report.charts.canvas import plot_axes
from stillhouse.report.charts.drawing import EMPTY_DRAWING, Drawing, LegendEntry
from stillhouse.report.charts.heatmap import Rows, to_array
from stillhouse.report.charts.styles import SeriesStyle, series_styles
from stillhouse.report.charts.svg import inline_svg
from stillhouse.report.formatting import truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.9, 0.5)  # of the samples inside each contour, the outer one first
BLUR = np.array([1.0, 2.0, 1.0]) / 4
NOTE = "Contours around 50 % and 90 % of the images of each network."


def draw_density(chart: DensityPlot, ident: str) -> Drawing:
    """The contours of a density plot."""
    x, y = (cell_centres(edges) for edges in (chart.x_edges, chart.y_edges))
    smoothed = [smoothed_counts(each, len(y), len(x)) for each in chart.densities]
    if len(x) < 3 or len(y) < 3 or not any(each.any() for each in smoothed):
        return EMPTY_DRAWING
    drawn = plot_axes(linear_scale(x, margin=0), linear_scale(y, margin=0), chart.x, chart.y)
    styles = series_styles([each.name for each in chart.densities])
    for each, style in zip(smoothed, styles, strict=True):
        if each.any():
            _contours(drawn, x, y, each, style)
    shown = zip(chart.densities, styles, smoothed, strict=True)
    legend = tuple(LegendEntry(each.name, style) for each, style, v in shown if v.any())
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return Drawing((inline_svg(figure, ident, _label(chart)),), legend, NOTE)


def cell_centres(edges: tuple[float, ...]) -> Rows:
    """The centres of the cells, and of an empty cell at each end so that contours close."""
    known = np.asarray(edges, float)
    if len(known) < 2 or not np.isfinite(known).all():
        return np.empty(0)
    wide = np.concatenate(([2 * known[0] - known[1]], known, [2 * known[-1] - known[-2]]))
    centres: Rows = (wide[1:] + wide[:-1]) / 2
    return centres


def smoothed_counts(each: Histogram2D, rows: int, columns: int) -> Rows:
    """Counts with a border of empty cells, blurred so that contours are not ragged."""
    counts = np.nan_to_num(to_array(each.counts)).clip(min=0)[: rows - 2, : columns - 2]
    smoothed = np.zeros((max(rows, 1), max(columns, 1)))
    smoothed[1 : 1 + counts.shape[0], 1 : 1 + counts.shape[1]] = counts
    for axis in (0, 1):
        if smoothed.shape[axis] >= len(BLUR):
            smoothed = np.apply_along_axis(np.convolve, axis, smoothed, BLUR, "same")
    smoothed[[0, -1]] = 0
    smoothed[:, [0, -1]] = 0
    return smoothed


def contour_level(counts: Rows, share: float) -> float:
    """The level that encloses this share: between the last count inside and the next lower one."""
    cells = np.sort(counts, axis=None)[::-1]
    last = int(np.searchsorted(cells.cumsum(), share * cells.sum()))
    last = min(last, len(cells) - 1)
    lower = cells[cells < cells[last]]
    return float(cells[last] + (lower[0] if len(lower) else 0)) / 2


def _contours(drawn: Axes, x: Rows, y: Rows, counts: Rows, style: SeriesStyle) -> None:
    levels = sorted({contour_level(counts, share) for share in SHARES})
    dashes = [(0, style.dash) if style.dash else "-"]
    top = float(counts.max())
    drawn.contourf(x, y, counts, [levels[-1], 2 * top], colors=[style.colour], alpha=0.13)
    drawn.contour(
        x, y, counts, levels, colors=[style.colour], linewidths=[1.1, 1.8], linestyles=dashes
    )


def _label(chart: DensityPlot) -> str:
    names = [
        f"{truncate(each.name, 60)} with {np.nansum(to_array(each.counts)):,.0f} samples"
        for each in chart.densities
    ]
    return f"{chart.title}. Density plot of {chart.y} over {chart.x}: {join_names(names)}."

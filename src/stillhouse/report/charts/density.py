"""Two quantities at once: a line round half of the samples of a network, and one round 90 %."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.explain.section import Density, Joint
from stillhouse.report.charts import svg
from stillhouse.report.charts.canvas import plane
from stillhouse.report.charts.drawing import NOTHING, Drawing, Key
from stillhouse.report.charts.heatmap import Rows, matrix
from stillhouse.report.charts.styles import Look, looks
from stillhouse.report.axis_scale import linear
from stillhouse.report.formatting import clipped, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARES = (0.9, 0.5)  # of the samples inside of each line, from the outer to the inner
BLUR = np.array([1.0, 2.0, 1.0]) / 4
NOTE = "The outer line of each holds 90 % of its samples, the inner one half."


def draw(chart: Joint, ident: str) -> Drawing:
    """The densities of a chart."""
    x, y = (centres(edges) for edges in (chart.x_edges, chart.y_edges))
    found = [density(each, len(y), len(x)) for each in chart.densities]
    if len(x) < 3 or len(y) < 3 or not any(each.any() for each in found):
        return NOTHING
    drawn = plane(linear(x, margin=0), linear(y, margin=0), chart.x, chart.y)
    styles = looks([each.name for each in chart.densities])
    for each, look in zip(found, styles, strict=True):
        if each.any():
            _contours(drawn, x, y, each, look)
    shown = zip(chart.densities, styles, found, strict=True)
    keys = tuple(Key(each.name, look) for each, look, values in shown if values.any())
    figure = drawn.get_figure(root=True)
    assert figure is not None
    return Drawing((svg.inline(figure, ident, _label(chart)),), keys, NOTE)


def centres(edges: tuple[float, ...]) -> Rows:
    """The middles of the cells, and of an empty one at each end so that lines close."""
    known = np.asarray(edges, float)
    if len(known) < 2 or not np.isfinite(known).all():
        return np.empty(0)
    wide = np.concatenate(([2 * known[0] - known[1]], known, [2 * known[-1] - known[-2]]))
    found: Rows = (wide[1:] + wide[:-1]) / 2
    return found


def density(each: Density, rows: int, columns: int) -> Rows:
    """Counts with an empty cell all round, a little blurred: single samples make ragged lines."""
    counts = np.nan_to_num(matrix(each.counts)).clip(min=0)[: rows - 2, : columns - 2]
    found = np.zeros((max(rows, 1), max(columns, 1)))
    found[1 : 1 + counts.shape[0], 1 : 1 + counts.shape[1]] = counts
    for axis in (0, 1):
        if found.shape[axis] >= len(BLUR):
            found = np.apply_along_axis(np.convolve, axis, found, BLUR, "same")
    found[[0, -1]] = 0
    found[:, [0, -1]] = 0
    return found


def level(counts: Rows, share: float) -> float:
    """Between the emptiest cell among the fullest that hold this share, and the next emptier."""
    cells = np.sort(counts, axis=None)[::-1]
    last = int(np.searchsorted(cells.cumsum(), share * cells.sum()))
    last = min(last, len(cells) - 1)
    lower = cells[cells < cells[last]]
    return float(cells[last] + (lower[0] if len(lower) else 0)) / 2


def _contours(drawn: Axes, x: Rows, y: Rows, counts: Rows, look: Look) -> None:
    levels = sorted({level(counts, share) for share in SHARES})
    dashes = [(0, look.dash) if look.dash else "-"]
    top = float(counts.max())
    drawn.contourf(x, y, counts, [levels[-1], 2 * top], colors=[look.colour], alpha=0.13)
    drawn.contour(
        x, y, counts, levels, colors=[look.colour], linewidths=[1.1, 1.8], linestyles=dashes
    )


def _label(chart: Joint) -> str:
    names = [
        f"{clipped(each.name, 60)} with {np.nansum(matrix(each.counts)):,.0f} samples"
        for each in chart.densities
    ]
    return f"{chart.title}. Densities of {chart.y} against {chart.x}: {listed(names)}."

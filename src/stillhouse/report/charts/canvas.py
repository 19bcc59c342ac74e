"""Empty axes of a common size and style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillhouse.report.axis_scale import AxisScale
from stillhouse.report.charts.styles import placeholder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 400.0, 250.0  # points; a page scales the drawing to its column
FONT = 11.0
LETTER = 6.2  # approximate width of a letter
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",
    "text.parse_math": False,  # a name may contain a dollar sign
    "lines.scale_dashes": False,
    "font.size": FONT,
}
INK, SOFT, LINE, PAPER = (placeholder(name) for name in ("ink", "soft", "line", "paper"))


@contextmanager
def chart_style() -> Iterator[None]:
    """The style of all charts; the settings of matplotlib are restored on exit."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank_figure(height: float = HEIGHT, width: float = WIDTH) -> Figure:
    """A figure without a background, of this size in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    return figure


def bare_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes without ticks and spines at this place, in points."""
    whole_width, whole_height = figure.get_size_inches() * 72
    box = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    axes.tick_params(which="both", length=0, left=False, bottom=False, labelsize=FONT, pad=4)
    axes.tick_params(labelcolor=SOFT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def add_text(figure: Figure, x: float, y: float, text: str, **how: Any) -> None:
    """Text at a place in points from the lower left."""
    width, height = figure.get_size_inches() * 72
    figure.text(x / width, y / height, text, **{"color": SOFT, "fontsize": FONT, **how})


def plot_axes(
    x: AxisScale, y: AxisScale, x_label: str, y_label: str, height: float = HEIGHT
) -> Axes:
    """Axes with a horizontal grid; the label of the y-axis stands above it, not rotated."""
    figure = blank_figure(height)
    left = 10 + LETTER * max((len(label) for label in y.labels), default=1)
    bottom, top = (38.0 if x_label else 22.0), 26.0
    # The last label of the horizontal axis is centred at its tick, so it needs half its width.
    right = 6 + LETTER / 2 * max((len(label) for label in x.labels), default=1)
    axes = bare_axes(figure, left, bottom, WIDTH - left - right, height - bottom - top)
    _apply_scales(axes, x, y)
    add_text(figure, 0, height - 11, _axis_label(y_label, y))
    add_text(figure, left + (WIDTH - left - right) / 2, 5, _axis_label(x_label, x), ha="center")
    return axes


def _axis_label(label: str, scale: AxisScale) -> str:
    return f"{label} (log scale)" if scale.logarithmic else label


def _apply_scales(axes: Axes, x: AxisScale, y: AxisScale) -> None:
    if x.logarithmic:
        axes.set_xscale("log")
    if y.logarithmic:
        axes.set_yscale("log")
    axes.set_xticks(x.ticks, x.labels)
    axes.set_yticks(y.ticks, y.labels)
    axes.minorticks_off()
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.grid(axis="y", color=LINE, linewidth=0.7)
    axes.spines["bottom"].set(visible=True, color=SOFT, linewidth=0.8)
    axes.set_axisbelow(True)

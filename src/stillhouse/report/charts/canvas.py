"""An empty chart: one size, thin lines, labels where there is room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stillhouse.report.charts.styles import stand_in
from stillhouse.report.axis_scale import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 400.0, 250.0  # units of the drawing, which a page scales to its column
FONT = 11.0
LETTER = 6.2  # about the width of one letter
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",
    "text.parse_math": False,  # a name may hold a dollar
    "lines.scale_dashes": False,
    "font.size": FONT,
}
INK, SOFT, LINE, PAPER = (stand_in(name) for name in ("ink", "soft", "line", "paper"))


@contextmanager
def styled() -> Iterator[None]:
    """The way that charts are drawn in, whatever the user's own matplotlib does."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def blank(height: float = HEIGHT, width: float = WIDTH) -> Figure:
    """A figure without a background, one unit a point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    return figure


def axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Bare axes at this place, in units."""
    whole_width, whole_height = figure.get_size_inches() * 72
    box = (left / whole_width, bottom / whole_height, width / whole_width, height / whole_height)
    found = figure.add_axes(box)
    found.patch.set_visible(False)
    found.tick_params(which="both", length=0, left=False, bottom=False, labelsize=FONT, pad=4)
    found.tick_params(labelcolor=SOFT)
    for spine in found.spines.values():
        spine.set_visible(False)
    return found


def write(figure: Figure, x: float, y: float, text: str, **how: Any) -> None:
    """Text at a place in units, from the lower left."""
    width, height = figure.get_size_inches() * 72
    figure.text(x / width, y / height, text, **{"color": SOFT, "fontsize": FONT, **how})


def plane(x: Scale, y: Scale, x_label: str, y_label: str, height: float = HEIGHT) -> Axes:
    """Axes with a grid: the vertical one's name above it, where it can be read upright."""
    figure = blank(height)
    left = 10 + LETTER * max((len(label) for label in y.labels), default=1)
    bottom, top = (38.0 if x_label else 22.0), 26.0
    # The last label of the horizontal axis is centred at its tick, so it needs half its width.
    right = 6 + LETTER / 2 * max((len(label) for label in x.labels), default=1)
    found = axes(figure, left, bottom, WIDTH - left - right, height - bottom - top)
    _scaled(found, x, y)
    write(figure, 0, height - 11, _named(y_label, y))
    write(figure, left + (WIDTH - left - right) / 2, 5, _named(x_label, x), ha="center")
    return found


def _named(label: str, scale: Scale) -> str:
    return f"{label} (logarithmic)" if scale.logarithmic else label


def _scaled(found: Axes, x: Scale, y: Scale) -> None:
    if x.logarithmic:
        found.set_xscale("log")
    if y.logarithmic:
        found.set_yscale("log")
    found.set_xticks(x.ticks, x.labels)
    found.set_yticks(y.ticks, y.labels)
    found.minorticks_off()
    found.set_xlim(x.low, x.high)
    found.set_ylim(y.low, y.high)
    found.grid(axis="y", color=LINE, linewidth=0.7)
    found.spines["bottom"].set(visible=True, color=SOFT, linewidth=0.8)
    found.set_axisbelow(True)

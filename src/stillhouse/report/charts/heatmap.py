"""Heatmaps: one image for the light page and one for the dark page, with a colour bar."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as Tree

import numpy as np
from numpy.typing import NDArray

from stillhouse.explain.section import Heatmap, Matrix
from stillhouse.report.axis_scale import (
    LIMIT,
    finite_values,
    linear_scale,
    tick_labels,
    tick_step,
    value_range,
)
from stillhouse.report.charts import svg
from stillhouse.report.charts.canvas import (
    INK,
    LETTER,
    PAPER,
    WIDTH,
    add_text,
    bare_axes,
    blank_figure,
)
from stillhouse.report.charts.colormap import SHADES, colormap
from stillhouse.report.charts.drawing import EMPTY_DRAWING, Drawing
from stillhouse.report.formatting import format_alike, format_short, truncate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = NDArray[np.float64]
Box = tuple[float, float, float, float]

MAX_CELLS = 300  # per side; more are not distinguishable on a screen
MAX_WRITTEN = 6  # cells per side: up to so many, each has its value written in it
TALLEST, LOWEST = 320.0, 60.0
TOP, BOTTOM = 24.0, 38.0
MAX_NAME = 14  # letters of the name of a row or column
NAME_HEIGHT, GAP = 13.0, 6.0  # of a line of text, and between names beside each other, in points
GRADIENT = np.arange(SHADES - 1, -1, -1, dtype=np.uint8)[:, None]
DARK = 0.6  # of a colour map: from here on, text is in the colour of the page


def draw_heatmap(chart: Heatmap, ident: str) -> Drawing:
    """The matrix of a heatmap, row 0 at the top."""
    whole = to_array(chart.values)
    if not np.isfinite(whole).any():
        return EMPTY_DRAWING
    values, block = shrink(whole)
    low, high = chart.limits or _ends(values, chart.diverging)
    shades = _shades(values, low, high)
    scale = linear_scale([low, high], margin=0, count=4)
    box = _box(chart, whole.shape, max(map(len, scale.labels), default=0))
    left, _, width, height = box
    across = _ticks(chart.column_names, whole.shape[1], width, beside=True)
    bottom = BOTTOM + across.depth
    figure = blank_figure(height + TOP + bottom)
    drawn = _frame(figure, chart, whole.shape, box, across)
    if max(whole.shape) <= MAX_WRITTEN:
        _write_values(drawn, values, shades, chart.diverging)
    colour_bar = (left + width + 14, TOP, 11.0, height)
    for at, text in zip(scale.ticks, scale.labels, strict=True):
        place = bottom + height * (at - low) / (high - low)
        add_text(figure, colour_bar[0] + 16, place, text, va="center")
    below = [
        *_images(shades, chart.diverging, box),
        *_images(GRADIENT, chart.diverging, colour_bar),
    ]
    return Drawing(
        (svg.inline_svg(figure, ident, _label(chart, whole), below),), (), _note(whole, block)
    )


def _box(chart: Heatmap, shape: tuple[int, ...], letters: int) -> Box:
    """Left, top, width and height of the matrix; its cells are square if possible."""
    rows, columns = shape
    longest = max((len(_short(name)) for name in chart.row_names), default=len(f"{rows:,}"))
    left = 12 + LETTER * longest
    room = WIDTH - left - 34 - LETTER * letters
    height = min(max(room * rows / columns, LOWEST), TALLEST)
    return left, TOP, min(room, max(height * columns / rows, LOWEST)), height


def to_array(values: Matrix) -> Rows:
    """A matrix as an array, NaN for missing and infinite values."""
    width = max(map(len, values), default=0)
    array = np.full((len(values), width), np.nan)
    for row, line in zip(array, values, strict=True):
        row[: len(line)] = [math.nan if value is None else value for value in line]
    array[~(np.abs(array) < LIMIT)] = np.nan
    return array


def shrink(values: Rows) -> tuple[Rows, int]:
    """At most 300 cells per side, and the block size; a block has its value farthest from 0."""
    block = math.ceil(max(values.shape) / MAX_CELLS)
    if block == 1:
        return values, 1
    rows, columns = (math.ceil(size / block) for size in values.shape)
    padded = np.full((rows * block, columns * block), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    cells = padded.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, -1)
    farthest = np.where(np.isnan(cells), -1, np.abs(cells)).argmax(-1)
    return np.take_along_axis(cells, farthest[..., None], -1)[..., 0], block


def _images(shades: NDArray[np.uint8], diverging: bool, box: Box) -> list[svg.Element]:
    """The same image in the colours of the light and of the dark page, at this place."""
    x, y, width, height = (f"{side:.4g}" for side in box)
    place = {"x": x, "y": y, "width": width, "height": height, "preserveAspectRatio": "none"}
    return [
        Tree.Element(
            "image", {"class": theme, "href": _png(shades, colormap(theme, diverging)), **place}
        )
        for theme in ("light", "dark")
    ]


def _png(shades: NDArray[np.uint8], colours: bytes) -> str:
    from PIL import Image

    image = Image.fromarray(shades, "P")
    image.putpalette(colours + bytes(3))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, transparency=SHADES)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _ends(values: Rows, diverging: bool) -> tuple[float, float]:
    known = finite_values(values.ravel().tolist())
    if diverging:
        most = max(map(abs, known)) or 1.0
        return -most, most
    return value_range(known)


def _shades(values: Rows, low: float, high: float) -> NDArray[np.uint8]:
    share = ((np.nan_to_num(values, nan=low) - low) / (high - low)).clip(0, 1)
    shades = (share * (SHADES - 1)).round().astype(np.uint8)
    return np.where(np.isnan(values), SHADES, shades).astype(np.uint8)


class _Ticks(NamedTuple):
    """Places and labels of one axis, and how far labels that are turned reach below others."""

    places: list[float]
    labels: tuple[str, ...]
    depth: float = 0.0


def _ticks(names: Sequence[str], size: int, room: float, beside: bool) -> _Ticks:
    """The names of rows or columns, or their numbers, as many as there is room for.

    With `beside`, labels stand beside each other; those that take less room so are turned.
    """
    if not names:
        few = max(1, min(6, int(room / 30)))
        every = int(tick_step(0, size, few, whole=True)) if size > 10 else 1
        ticks = [float(tick) for tick in range(0, size, every)]
        return _Ticks(ticks, tick_labels(ticks))
    width = LETTER * max(len(_short(name)) for name in names)
    turned = beside and width + GAP > max(NAME_HEIGHT + GAP, room / size)
    space = width + GAP if beside and not turned else NAME_HEIGHT
    places = [*range(0, min(size, len(names)), math.ceil(space * size / room))]
    depth = width - NAME_HEIGHT if turned else 0.0
    return _Ticks([*map(float, places)], tuple(_short(names[i]) for i in places), depth)


def _short(name: str) -> str:
    return truncate(name, MAX_NAME)


def _frame(
    figure: Figure, chart: Heatmap, shape: tuple[int, ...], box: Box, across: _Ticks
) -> Axes:
    left, _, width, height = box
    drawn = bare_axes(figure, left, BOTTOM + across.depth, width, height)
    rows, columns = shape
    drawn.set_xlim(-0.5, columns - 0.5)
    drawn.set_ylim(rows - 0.5, -0.5)
    down = _ticks(chart.row_names, rows, height, beside=False)
    drawn.set_xticks(across.places, across.labels)
    drawn.set_yticks(down.places, down.labels)
    if across.depth:
        drawn.tick_params(axis="x", labelrotation=90)
    add_text(figure, 0, height + TOP + BOTTOM + across.depth - 11, chart.y)
    add_text(figure, left + width / 2, 5, chart.x, ha="center")
    return drawn


def _write_values(drawn: Axes, values: Rows, shades: NDArray[np.uint8], diverging: bool) -> None:
    texts = format_alike(np.nan_to_num(values).ravel().tolist())
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            share = shades[row, column] / (SHADES - 1)
            strength = abs(2 * share - 1) if diverging else share
            colour = PAPER if strength > DARK else INK
            text = texts[row * values.shape[1] + column]
            drawn.text(column, row, text, ha="center", va="center", color=colour, fontsize=11)


def _label(chart: Heatmap, values: Rows) -> str:
    known = finite_values(values.ravel().tolist())
    rows, columns = values.shape
    return (
        f"{chart.title}. Heatmap of {rows} rows ({chart.y}) and {columns} columns ({chart.x}): "
        f"values from {format_short(min(known))} to {format_short(max(known))}."
    )


def _note(values: Rows, block: int) -> str:
    parts = []
    if block > 1:
        parts.append(f"Each cell shows the value farthest from 0 of {block} × {block} values.")
    if np.isnan(values).any():
        parts.append("Empty cells have no value.")
    return " ".join(parts)

"""Maps of several levels over their image, side by side in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stillhouse.explain.activation import overlay_map
from stillhouse.explain.dense_maps import ImageCells, Level
from stillhouse.explain.drawing import WHITE
from stillhouse.explain.thumbnails import FEW_COLOURS, encode_png, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 144  # pixels: the longer side of one level
GAP = 6  # pixels between the levels
GREY = (128, 128, 128)  # of the gaps, on a light and on a dark page
DRAWN = 4  # levels, the finest; coarser ones have few cells
COLOURS = "Colours go from black, {low}, over violet and orange to pale yellow, {high}."


def encode_strip(cells: ImageCells, levels: Sequence[Level], maps: Sequence[Tensor]) -> str:
    """The finest levels as PNG in base64: maps (h, w) in [0, 1], with the outlines of objects."""
    from PIL import Image

    tiles = [draw_tile(cells, *pair) for pair in zip(levels[:DRAWN], maps, strict=False)]
    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height), GREY)
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (width + GAP), 0))
    return encode_png(strip, FEW_COLOURS)


def draw_tile(cells: ImageCells, level: Level, values: Tensor) -> Image:
    """One level over the image in grey: (h, w) in [0, 1]."""
    from PIL import Image, ImageDraw

    picture = to_pil(cells.pixels).convert("RGB")
    factor = TILE / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    smooth = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    heat = enlarge_cells(values, level, (height, width), factor)
    tile = overlay_map(picture.resize((width, height), smooth), heat)
    draw = ImageDraw.Draw(tile)
    for x1, y1, x2, y2 in (cells.boxes * factor).tolist():
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=WHITE)
    return tile


def enlarge_cells(
    values: Tensor, level: Level, size: tuple[int, int], factor: float = 1.0
) -> Tensor:
    """The value of the nearest cell at each pixel of an image: (h, w) -> (H, W).

    `size` is that of the image after scaling it by `factor`.
    """
    x, y = level.centres[0, 0].tolist()
    places = []
    for length, first, count in zip(size, (y, x), values.shape, strict=True):
        middle = (torch.arange(length) + 0.5) / factor
        places.append(((middle - first) / level.stride).round().long().clamp(0, count - 1))
    return values[places[0]][:, places[1]]


def strides_text(levels: Sequence[Level]) -> str:
    """The levels of a strip: `strides 8, 16 and 32`."""
    *some, last = (str(level.stride) for level in levels[:DRAWN])
    return f"strides {', '.join(some)} and {last}" if some else f"stride {last}"

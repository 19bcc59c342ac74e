"""Which cells of the grids of a SOLO network have a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.explain.activation import overlay_map
from stillhouse.explain.instance_predictions import (
    FIRES,
    CellScores,
    FoundInstances,
    InstancePredictions,
)
from stillhouse.explain.map_strips import COLOURS, GAP, GREY, TILE
from stillhouse.explain.phrases import count_of
from stillhouse.explain.section import CaptionedImage, Cell, ImageGrid, Section, Table
from stillhouse.explain.thumbnails import FEW_COLOURS, encode_png, to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

NAME, TITLE = "cell_scores", "Scores of the cells"


def section(predictions: InstancePredictions) -> Section | None:
    """The scores of teacher, control and student; None without a network of cells."""
    found = {one.name: predictions.found[one.name] for one in predictions.main}
    found = {name: one for name, one in found.items() if one.firing is not None}
    if not found:
        return None
    count = min(len(one.cells) for one in found.values())
    pictures = tuple(
        picture(predictions, name, one.cells[index])
        for index in range(count)
        for name, one in found.items()
    )
    split = f" of {predictions.source}" if predictions.source else ""
    sentences = (
        "The score of a cell is the highest probability of a class. Before suppression, a cell of "
        f"at least {FIRES:g} is a candidate. An object has up to nine cells in each grid that it "
        f"belongs to. Numbers are means over {count_of(len(predictions.images), 'image')}{split}.",
        "Each picture has one map for each grid. " + COLOURS.format(low="0", high="1"),
    )
    grid = ImageGrid("Scores of the cells of each grid", pictures, len(found))
    return Section(NAME, TITLE, sentences, (firing_table(found),), (grid,) if pictures else ())


def firing_table(found: dict[str, FoundInstances]) -> Table:
    """The mean number of candidate cells of each grid."""
    columns = {name: one.firing.tolist() for name, one in found.items() if one.firing is not None}
    grids = {name: len(values) for name, values in columns.items()}
    rows: list[tuple[Cell, ...]] = []
    for number in range(max(grids.values())):
        values = (c[number] if number < grids[name] else None for name, c in columns.items())
        rows.append((f"grid {number + 1}", *values))
    title = f"Cells with a score of at least {FIRES:g} in an image"
    return Table(("grid", *columns), tuple(rows), title)


def picture(predictions: InstancePredictions, name: str, cells: CellScores) -> CaptionedImage:
    """The maps of all grids side by side."""
    from PIL import Image

    image = predictions.image(cells.key)
    tiles = [draw_grid(image, grid, cells.share) for grid in cells.grids]
    width, height = tiles[0].size
    strip = Image.new("RGB", (len(tiles) * (width + GAP) - GAP, height), GREY)
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * (width + GAP), 0))
    sides = ", ".join(str(len(grid)) for grid in cells.grids)
    alt = f"Maps of the scores of {name} in grids of {sides} cells per side."
    return CaptionedImage(encode_png(strip, FEW_COLOURS), name, alt)


def draw_grid(image: Tensor, grid: Tensor, share: tuple[float, float]) -> Image:
    """The scores of one grid over the image in grey: (C, H, W) uint8, (S, S) in [0, 1]."""
    from PIL import Image

    drawn = to_pil(image).convert("RGB")
    factor = TILE / max(drawn.size)
    width, height = (max(1, round(side * factor)) for side in drawn.size)
    smooth = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    padded = [max(1, round(side / part)) for side, part in zip((height, width), share, strict=True)]
    heat = F.interpolate(grid[None, None], padded, mode="nearest-exact")[0, 0, :height, :width]
    whole = torch.zeros(height, width)
    whole[: heat.shape[0], : heat.shape[1]] = heat
    return overlay_map(drawn.resize((width, height), smooth), whole)

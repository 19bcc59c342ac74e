"""Masks of objects on an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from stillhouse.explain.drawing import Box, Colour, Mark, draw_text, resized, sizes_for
from stillhouse.explain.thumbnails import to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

OPACITY = 0.55  # of a filled mask
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class MaskMark(NamedTuple):
    """A mask of any size over the whole of its image, with its text."""

    mask: Mask  # (h, w)
    text: str
    colour: Colour
    filled: bool = True  # else an outline alone
    below: bool = False  # the text is at the lower edge, where that of another mask is not


def draw_instances(image: Tensor, marks: Sequence[MaskMark], largest: int | None = None) -> Image:
    """Masks and their outlines over the image in grey: (C, H, W) uint8.

    The drawing has the size that `draw_marks` gives it. Of masks and of texts the last are on top.
    """
    from PIL import Image, ImageDraw

    picture = resized(to_pil(image).convert("L").convert("RGB"), largest)[0]
    size = sizes_for(max(picture.size))
    pixels = np.asarray(picture, float)
    masks = [enlarge(mark.mask, picture.size) for mark in marks]
    for mark, mask in zip(marks, masks, strict=True):
        colour = np.asarray(mark.colour, float)
        if mark.filled:
            pixels[mask] = (1 - OPACITY) * pixels[mask] + OPACITY * colour
        pixels[outline(mask, size.line)] = colour
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(drawn)
    for mark, mask in zip(marks, masks, strict=True):
        if mask.any():
            box = box_of(mask)
            text = Mark(box, mark.text, mark.colour, below=mark.below)
            draw_text(draw, box, text, size, drawn.size)
    return drawn


def enlarge(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at the width and height of a picture: a pixel is in it if one half of it is."""
    from PIL import Image

    grey = Image.fromarray(255 * mask.astype(np.uint8))
    smooth = Image.Resampling.BOX if grey.width > size[0] else Image.Resampling.NEAREST
    return np.asarray(grey.resize(size, smooth)) >= 128


def outline(mask: Mask, width: int) -> Mask:
    """The pixels of a mask that are within `width` of its edge: (h, w) -> (h, w)."""
    inner = np.pad(mask, 1)
    for _ in range(width):
        core = inner[1:-1, 1:-1]
        for part in (inner[:-2, 1:-1], inner[2:, 1:-1], inner[1:-1, :-2], inner[1:-1, 2:]):
            core = core & part
        inner = np.pad(core, 1)
    return mask & ~inner[1:-1, 1:-1]


def box_of(mask: Mask) -> Box:
    """The tight box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)

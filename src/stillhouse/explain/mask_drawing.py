"""Masks in the colours of their classes, over their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.explain.drawing import BLACK, Colour, class_colour, load_font, resized
from stillhouse.explain.thumbnails import to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

OPACITY = 0.65  # of a mask over its image
RIGHT, WRONG = (38, 166, 91), (214, 48, 49)  # only the one network, only the other is right
LINE = 20  # pixels: the height of a line of the legend
WIDTH = 560  # of the legend


def draw_mask(image: Tensor, mask: Tensor, largest: int | None = None) -> Image:
    """Classes in their colours over the image: (C, H, W) uint8, (H, W). 255 is black."""
    labels = mask.unique().tolist()
    colours = {c: BLACK if c == IGNORE else class_colour(c) for c in labels}
    return overlay(image, mask, colours, largest)


def draw_difference(
    image: Tensor, truth: Tensor, own: Tensor, other: Tensor, largest: int | None = None
) -> Image:
    """Green where only the first mask is right, red where only the second is: (H, W) each."""
    known = truth != IGNORE
    first, second = (own == truth) & known, (other == truth) & known
    which = (first & ~second).long() + 2 * (second & ~first).long()
    return overlay(image, which, {1: RIGHT, 2: WRONG}, largest)


def overlay(
    image: Tensor, values: Tensor, colours: dict[int, Colour], largest: int | None
) -> Image:
    """Colours of values over the image in grey; other values are left: (C, H, W), (H, W)."""
    from PIL import Image

    grey = np.asarray(to_pil(image).convert("L"), float)[..., None].repeat(3, 2)
    drawn = grey.copy()
    for value, colour in colours.items():
        part = (values == value).numpy()
        drawn[part] = (1 - OPACITY) * grey[part] + OPACITY * np.asarray(colour, float)
    return resized(Image.fromarray(drawn.round().astype(np.uint8)), largest)[0]


def draw_legend(classes: Sequence[str], labels: Sequence[int]) -> Image:
    """The colours of some classes with their names, in rows as wide as they fit."""
    from PIL import Image, ImageDraw

    font = load_font(LINE - 6)
    places: list[tuple[int, int, int]] = []
    x = y = 0
    for label in labels:
        width = LINE + round(font.getlength(classes[label])) + LINE
        if x and x + width > WIDTH:
            x, y = 0, y + LINE
        places.append((label, x, y))
        x += width
    picture = Image.new("RGB", (WIDTH, y + LINE), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for label, left, top in places:
        draw.rectangle((left + 2, top + 3, left + LINE - 4, top + LINE - 4), class_colour(label))
        draw.text((left + LINE, top + LINE / 2), classes[label], BLACK, font, anchor="lm")
    return picture


def labels_of(masks: Sequence[Tensor]) -> list[int]:
    """The classes that occur in some masks, in order."""
    present = torch.cat([mask.unique() for mask in masks]).unique().tolist() if masks else []
    return [int(label) for label in present if label != IGNORE]

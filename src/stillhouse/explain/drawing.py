"""Boxes with texts on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from stillhouse.explain.thumbnails import to_pil

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

    Font = FreeTypeFont

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
SMALL = 320  # pixels: the longer side that smaller images are enlarged to, or nearly
GOLDEN = 0.618034  # of the circle of hues, between the colours of two classes
LIGHTNESS = (0.62, 0.45, 0.75)  # of classes in turn, as similar hues come again


class Mark(NamedTuple):
    """One box in pixels of its image, with its text."""

    box: Box
    text: str
    colour: Colour
    dashed: bool = False
    below: bool = False  # the text is at the lower edge, where that of another box is not


class Size(NamedTuple):
    """The sizes of what is drawn, in pixels."""

    line: int
    font: int


@cache
def class_colour(label: int) -> Colour:
    """The colour of a class by its index: neighbours differ most, and none is close to black."""
    hue, lightness = (0.58 + label * GOLDEN) % 1, LIGHTNESS[label % len(LIGHTNESS)]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_marks(image: Tensor, marks: Sequence[Mark], largest: int | None = None) -> Image:
    """An RGB image with boxes: (C, H, W) uint8.

    The pixels of a small image are repeated, by a whole factor, so that its longer side is nearly
    320; one larger than `largest` is reduced. Of boxes and of texts the last are on top.
    """
    from PIL import ImageDraw

    picture = to_pil(image).convert("RGB")
    picture, scale = resized(picture, largest)
    size = sizes_for(max(picture.size))
    draw = ImageDraw.Draw(picture)
    boxes = [tuple(scale * side for side in mark.box) for mark in marks]
    for mark, (x1, y1, x2, y2) in zip(marks, boxes, strict=True):
        draw_box(draw, (x1, y1, x2, y2), mark.colour, size.line, mark.dashed)
    for mark, (x1, y1, x2, y2) in zip(marks, boxes, strict=True):
        draw_text(draw, (x1, y1, x2, y2), mark, size, picture.size)
    return picture


def resized(picture: Image, largest: int | None) -> tuple[Image, float]:
    """The image in the size that it is drawn in, and the factor."""
    from PIL import Image

    longer = max(picture.size)
    if largest is not None and longer > largest:
        factor = largest / longer
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        return picture.resize(size, Image.Resampling.LANCZOS), factor
    times = max(1, SMALL // longer)
    if times > 1:
        size = (picture.width * times, picture.height * times)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    return picture, float(times)


def sizes_for(longer: int) -> Size:
    """Line width and size of the font for an image of this longer side."""
    return Size(max(2, round(longer / 320)), max(14, round(longer / 45)))


def draw_box(draw: ImageDraw, box: Box, colour: Colour, width: int, dashed: bool) -> None:
    """The outline of a box on a dark rim, which separates it from a background of its colour."""
    x1, y1, x2, y2 = box
    sides = ((x1, y1, x2, y1), (x2, y1, x2, y2), (x2, y2, x1, y2), (x1, y2, x1, y1))
    for tint, thick in ((BLACK, width + 2), (colour, width)):
        for side in sides:
            for part in dashes(side, 4 * width) if dashed else (side,):
                draw.line(part, tint, thick)


def dashes(line: Box, length: float) -> Iterator[Box]:
    """The dashes of a line, as long as the gaps; it begins and ends with a dash."""
    x1, y1, x2, y2 = line
    reach = max(abs(x2 - x1), abs(y2 - y1))
    count = 2 * round(reach / length / 2) + 1
    for number in range(0, count, 2):
        start, end = number / count, (number + 1) / count
        yield (
            x1 + start * (x2 - x1),
            y1 + start * (y2 - y1),
            x1 + end * (x2 - x1),
            y1 + end * (y2 - y1),
        )


def draw_text(draw: ImageDraw, box: Box, mark: Mark, size: Size, whole: tuple[int, int]) -> None:
    """The text on the colour of its box: above it, without room inside, or at its lower edge."""
    if not mark.text:
        return
    font = load_font(size.font)
    width = draw.textlength(mark.text, font) + 0.4 * size.font
    height = 1.25 * size.font
    left = min(max(0.0, box[0] - size.line / 2), max(0.0, whole[0] - width))
    above = box[1] - height if box[1] >= height else box[1]
    top = box[3] - height if mark.below else above
    top = min(max(0.0, top), max(0.0, whole[1] - height))
    draw.rectangle((left, top, left + width, top + height), mark.colour)
    middle = (left + 0.2 * size.font, top + height / 2)
    draw.text(middle, mark.text, readable_on(mark.colour), font, anchor="lm")


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever has the larger contrast with a colour."""
    red, green, blue = (((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour)
    return BLACK if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else WHITE


@cache
def load_font(size: int) -> Font:
    """A font that has the letters of most languages: that of matplotlib."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size
    )


def class_marks(
    boxes: Iterable[Sequence[float]], labels: Iterable[int], texts: Iterable[str]
) -> list[Mark]:
    """Marks in the colours of their classes: K boxes x1, y1, x2, y2."""
    return [
        Mark((box[0], box[1], box[2], box[3]), text, class_colour(label))
        for box, label, text in zip(boxes, labels, texts, strict=True)
    ]

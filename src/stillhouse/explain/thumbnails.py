"""Small images for a page, as PNG in base64."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES = 12  # of a grid of examples, at most
SMALLEST, LARGEST = 64, 96  # pixels of the longer side
FEW_COLOURS = 96  # of each image where a page has many


def encode_thumbnail(image: Tensor, largest: int = LARGEST, colours: int | None = None) -> str:
    """An image as PNG in base64: (C, H, W) uint8. 96 `colours` take a third of the bytes."""
    return encode_png(resize_thumbnail(image, largest), colours)


def resize_thumbnail(image: Tensor, largest: int = LARGEST) -> Image:
    """A grey or RGB image; the pixels of a small one are repeated: (C, H, W) uint8."""
    from PIL import Image

    thumbnail = to_pil(image)
    longer = max(thumbnail.size)
    if longer < SMALLEST:
        factor = -(-SMALLEST // longer)
        size = (thumbnail.width * factor, thumbnail.height * factor)
        thumbnail = thumbnail.resize(size, Image.Resampling.NEAREST)
    elif longer > largest:
        thumbnail.thumbnail((largest, largest))
    return thumbnail


def to_pil(image: Tensor) -> Image:
    """A grey image of the first channel, or an RGB image of the first three: (C, H, W) uint8."""
    from PIL import Image

    channels = image.cpu()[:3] if len(image) >= 3 else image.cpu()[:1]
    array = np.ascontiguousarray(channels.permute(1, 2, 0).numpy())
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def encode_png(image: Image, colours: int | None = None) -> str:
    """The bytes of a PNG in base64."""
    file = io.BytesIO()
    (image if colours is None else image.quantize(colours)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")

"""Images of a diagnosis: those of which two networks say different things, and their bytes."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.section import Picture, Pictures
from stillhouse.explain.phrases import percent

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = 12
SMALLEST, LARGEST = 64, 96  # pixels of the longer side, as it is shown
FEW = 96  # colours of a picture where there are many pictures


def disagreements(hearing: Hearing, student: Voice, other: Voice) -> Pictures | None:
    """Up to 12 images that two networks call differently, those first where both are surest."""
    sure, said = zip(*(v.logits.double().softmax(1).max(1) for v in (student, other)), strict=True)
    surest = torch.minimum(*sure)
    different = (said[0] != said[1]).nonzero().flatten()
    order = different[surest[different].argsort(descending=True, stable=True)][:PICTURES]
    pictures = []
    for index in order.tolist():
        words = [
            f"{voice.name}: {hearing.classes[int(s[index])]} ({percent(float(c[index]))})"
            for voice, s, c in zip((student, other), said, sure, strict=True)
        ]
        true = hearing.classes[int(hearing.labels[index])]
        alt = f"An image of class {true}; {'; '.join(words)}."
        caption = f"true: {true}; {'; '.join(words)}"
        pictures.append(Picture(png(hearing.picture(index)), caption, alt))
    if not pictures:
        return None
    return Pictures(f"What {student.name} and {other.name} call differently", tuple(pictures))


def png(image: Tensor, largest: int = LARGEST, colours: int | None = None) -> str:
    """A PNG in base64, its pixels repeated where it is small: (C, H, W) uint8.

    With so many `colours` it takes a third of the room.
    """
    return coded(sized(image, largest), colours)


def sized(image: Tensor, largest: int = LARGEST) -> Image:
    """An image that PIL knows, grey or in colour, of a size to look at: (C, H, W) uint8."""
    from PIL import Image

    pixels = image.cpu()[:3] if len(image) >= 3 else image.cpu()[:1]
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    longer = max(picture.size)
    if longer < SMALLEST:
        factor = -(-SMALLEST // longer)
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    elif longer > largest:
        picture.thumbnail((largest, largest))
    return picture


def coded(picture: Image, colours: int | None = None) -> str:
    """The bytes of a PNG, in base64."""
    file = io.BytesIO()
    (picture if colours is None else picture.quantize(colours)).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")

"""What is written of predicted masks: palette images, drawn images, and the share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import IGNORE, Batch, image_sizes
from stillhouse.data.targets import SampleTarget
from stillhouse.explain.drawing import class_colour
from stillhouse.explain.mask_drawing import draw_mask
from stillhouse.files import atomic_write, csv_text, write_text
from stillhouse.functional.resize import resize_maps
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.types import Trace

if TYPE_CHECKING:
    from PIL.Image import Image

MASKS = "masks"  # the folder of the palette images
JPEG_QUALITY = 92


class MaskWriter:
    """A mask of class indices for each image, the mask drawn over the image, and a table.

    Masks are palette PNG files below `masks`, of the size of the images as they were read.
    classes.csv has the name and colour of each index, and masks.csv the share of each class in
    each image.
    """

    file: str = "masks.csv"

    def __init__(self, task: Any, classes: tuple[str, ...], out: Path, _: float) -> None:
        self.task, self.classes, self.out = task, classes, out
        self.rows: dict[int, dict[str, Any]] = {}

    def target(self, image: Tensor) -> SampleTarget:
        """A mask without any class, so that images are loaded as those with labels."""
        return torch.full(image.shape[1:], IGNORE, dtype=torch.uint8)

    def names(self, pictures: Sequence[Picture]) -> list[str]:
        """The masks, the drawn images and the tables."""
        masks = [mask_name(picture) for picture in pictures]
        return [*masks, *(picture.drawn for picture in pictures), "classes.csv", self.file]

    def add(self, trace: Trace, batch: Batch[Any], seen: Seen) -> None:
        """Write the masks of a batch, and draw them."""
        logits = read_segmentation(trace.out).logits
        padded = (batch.images.shape[-2], batch.images.shape[-1])
        sizes = image_sizes(batch).tolist()
        for index, (picture, pixels) in enumerate(zip(*seen, strict=True)):
            height, width = sizes[index]
            maps = resize_maps(logits[index : index + 1], padded)[..., :height, :width]
            size = (pixels.shape[-2], pixels.shape[-1])
            mask = resize_maps(maps, size).argmax(1)[0].cpu()
            self.write(picture, pixels, mask)
            counts = mask.flatten().bincount(minlength=len(self.classes)) / mask.numel()
            shares = {n: f"{v:.6f}" for n, v in zip(self.classes, counts.tolist(), strict=True)}
            self.rows[picture.number] = {"path": picture.name, **shares}

    def write(self, picture: Picture, pixels: Tensor, mask: Tensor) -> None:
        """The palette image and the drawn one."""
        save(palette_image(mask, len(self.classes)), self.out / mask_name(picture))
        save(draw_mask(pixels, mask), self.out / picture.drawn)

    def finish(self) -> str:
        """Write classes.csv and masks.csv."""
        colours = [class_colour(index) for index in range(len(self.classes))]
        table = [
            {"index": index, "name": name, "r": r, "g": g, "b": b}
            for index, (name, (r, g, b)) in enumerate(zip(self.classes, colours, strict=True))
        ]
        write_text(self.out / "classes.csv", csv_text(table))
        write_text(self.out / self.file, csv_text([row for _, row in sorted(self.rows.items())]))
        return "a mask each, and the share of each class"


def mask_name(picture: Picture) -> str:
    """The file of a mask: `masks/` and the name of the image, with `.png`."""
    name = PurePosixPath(picture.name)
    suffix = "" if name.suffix.lower() == ".png" else ".png"
    return f"{MASKS}/{name}{suffix}"


def palette_image(mask: Tensor, classes: int) -> Image:
    """Class indices as a palette image, of 16 bits without colours for more than 256 classes."""
    from PIL import Image

    if classes > IGNORE + 1:
        return Image.fromarray(mask.numpy().astype(np.uint16))
    image = Image.fromarray(mask.numpy().astype(np.uint8)).convert("P")
    image.putpalette([part for index in range(classes) for part in class_colour(index)])
    return image


def save(image: Image, path: Path) -> None:
    """Write an image as PNG or JPEG, by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        if path.suffix.lower() == ".png":
            image.save(file, "PNG")
        else:
            image.save(file, "JPEG", quality=JPEG_QUALITY)

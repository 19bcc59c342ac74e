"""Mosaic: four samples of a source in one image, before its transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stillhouse.batches import IGNORE, Objects
from stillhouse.data.random import uniform_number
from stillhouse.data.source import Sample, Source
from stillhouse.data.targets import SampleTarget, collate, is_spatial
from stillhouse.data.transforms.objects import cut, move, resize_parts
from stillhouse.data.transforms.zoom import GREY
from stillhouse.errors import UserError
from stillhouse.spec import require, spec

CENTRE = (0.25, 0.75)  # the range of the common corner, as a fraction of the side
WHOLE_IMAGES = (
    "data.mosaic joins images with boxes or masks, but the data have classes of whole images; "
    "leave data.mosaic out"
)


@spec
class Mosaic:
    """With a probability, four images meet at a random point (Bochkovskiy et al., 2020).

    The image of `size` pixels a side is filled by the sample and three random others of the source,
    whose longer side is half of it. Objects whose centre is cut off are dropped, and boxes are
    clipped. A mosaic with an image without targets has none.
    """

    size: int = 1280
    probability: float = 1.0

    def __post_init__(self) -> None:
        require(self.size >= 8, "size", "at least 8", self.size)
        require(0 < self.probability <= 1, "probability", "in (0, 1]", self.probability)


@dataclass(frozen=True)
class MosaicSamples:
    """The samples of a source, some of them as mosaics, by key and view.

    The random numbers are by (seed, key, view), so a sample is the same in every batch and process.
    """

    source: Source
    mosaic: Mosaic
    seed: int

    def sample(self, key: int, view: int) -> Sample:
        """One sample, or the mosaic that it begins; its target is of the same kind."""
        chance, x, y, *others = (uniform_number(self.seed, key, view, i) for i in range(6))
        if chance >= self.mosaic.probability:
            return self.source[key]
        keys = [key, *(int(number * len(self.source)) for number in others)]
        low, high = CENTRE
        centre = [int(self.mosaic.size * (low + number * (high - low))) for number in (x, y)]
        parts = [self.source[index] for index in keys]
        return join_samples(parts, self.mosaic.size, centre[0], centre[1])


def join_samples(samples: Sequence[Sample], size: int, x: int, y: int) -> Sample:
    """Four samples around the point (x, y) of an image of `size` pixels a side; key of the first.

    From left to right and from top to bottom. Raises UserError for targets of whole images.
    """
    if any(not is_spatial(sample.target) for sample in samples if sample.target is not None):
        raise UserError(WHOLE_IMAGES)
    image = samples[0].image
    canvas = image.new_full((len(image), size, size), GREY)
    targets = []
    for number, sample in enumerate(samples):
        tile, target = resize_sample(sample, size // 2)
        height, width = tile.shape[-2:]
        # where the whole tile would begin, and what of it is inside
        left, top = (x if number % 2 else x - width), (y if number >= 2 else y - height)
        begin, end = (
            (max(0, -left), max(0, -top)),
            (min(width, size - left), min(height, size - top)),
        )
        window = cut(begin[1], begin[0], end[1] - begin[1], end[0] - begin[0])
        tile, target = move(window, tile, target)
        left, top = left + begin[0], top + begin[1]
        canvas[:, top : top + tile.shape[-2], left : left + tile.shape[-1]] = tile
        targets.append(place(target, size, left, top))
    return Sample(canvas, join_targets(targets), samples[0].key)


def resize_sample(sample: Sample, side: int) -> tuple[Tensor, SampleTarget]:
    """An image whose longer side is `side` pixels, with its target: -> (C, h, w)."""
    scale = side / max(sample.image.shape[-2:])
    height, width = (max(1, round(length * scale)) for length in sample.image.shape[-2:])

    def resize(*parts: Tensor) -> object:
        return resize_parts(parts, height, width, "bilinear")

    return move(resize, sample.image, sample.target)


def place(target: SampleTarget, size: int, left: int, top: int) -> SampleTarget:
    """The target of a tile as one of the whole image, in which the tile begins at (left, top)."""
    if isinstance(target, Objects):
        masks = target.masks
        if masks is not None:
            masks = _paste(masks, masks.new_zeros(len(masks), size, size), left, top)
        corner = target.boxes.new_tensor([left, top, left, top])
        return replace(target, boxes=target.boxes + corner, masks=masks)
    if isinstance(target, Tensor) and target.ndim == 2:
        return _paste(target, target.new_full((size, size), IGNORE), left, top)
    return target


def join_targets(targets: Sequence[SampleTarget]) -> SampleTarget:
    """One target of several of one image; None if one of them is None."""
    if any(target is None for target in targets):
        return None
    whole = collate(targets)
    if isinstance(whole, Objects):
        return replace(whole, image=torch.zeros_like(whole.image), images=1)
    maps = whole
    assert isinstance(maps, Tensor)
    joined = maps[0]
    for part in maps[1:]:  # the tiles do not overlap
        joined = part.where(part != IGNORE, joined)
    return joined


def _paste(part: Tensor, canvas: Tensor, left: int, top: int) -> Tensor:
    canvas[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    return canvas

"""Scenes of several coloured digits, with labels, boxes and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from stillhouse.batches import IGNORE
from stillhouse.data.cache import Tensors, cached
from stillhouse.data.embedded.glyphs import (
    CHUNK,
    DIGITS,
    Pose,
    check_split,
    chunk_generator,
    draw_glyphs,
    pick_glyphs,
    random_angle,
    random_clouds,
    random_normal,
    random_uniform,
    to_bytes,
)
from stillhouse.data.source import fingerprint_of_recipe
from stillhouse.errors import UserError

OBJECTS = 4  # maximum per scene

_VERSION = 1
_CELLS = 3  # cells per side of the grid; an object has a cell to itself
_THEMES = 4  # each scene has a theme, and each theme its own class frequencies
_IMBALANCE = 4.0  # frequency of the most over the least common class, before themes
_SPREAD = 0.9  # sigma of the log-normal factor of a theme on the frequency of a class
_INK = 0.45  # a pixel with more ink belongs to the digit
_PIXELS, _FRACTION = 12, 0.35  # visible pixels, and their fraction, that an object needs


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with several objects each; object `k` is the pixels of `instances == k + 1`."""

    images: Tensor  # (N, 3, S, S) uint8
    instances: Tensor  # (N, S, S) uint8, 0 for the background
    labels: Tensor  # (N, K) int64, -1 where there is no object, or too little of it is visible
    boxes: Tensor  # (N, K, 4) float32: left, top, right, bottom of the visible part, in pixels
    classes: tuple[str, ...]
    fingerprint: str
    name: str

    def __len__(self) -> int:
        return len(self.labels)


def scene_classes(scenes: Scenes) -> Tensor:
    """Which classes are in each scene: -> (N, classes) float, multi-hot."""
    count = len(scenes.classes)
    hot = torch.zeros(len(scenes), count + 1)
    hot.scatter_(1, scenes.labels.where(scenes.labels >= 0, count), 1.0)
    return hot[:, :count]


def semantic_masks(scenes: Scenes) -> Tensor:
    """Class of every pixel: 0 for background, class + 1, 255 to ignore: -> (N, S, S)."""
    names = (scenes.labels + 1).where(scenes.labels >= 0, IGNORE)
    names = torch.nn.functional.pad(names, (1, 0))  # instance 0 is the background
    return names.gather(1, scenes.instances.flatten(1).long()).view(scenes.instances.shape)


def make_scenes(
    split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False
) -> Scenes:
    """Scenes of one to four overlapping digits of ten unevenly frequent classes.

    The first scenes of a longer set are those of a shorter one with the same options.
    """
    check_split(split)
    if count < 1 or size < 24:
        raise UserError("digits/scenes needs `count` of at least 1 and `size` of 24")
    recipe = {
        "data": "digits/scenes",
        "version": _VERSION,
        "split": split,
        "count": count,
        "seed": seed,
        "size": size,
    }
    fingerprint = fingerprint_of_recipe(recipe)

    def make() -> Tensors:
        chunks = range((count + CHUNK - 1) // CHUNK)
        drawn = [_draw(split, chunk_generator(seed, split, i), size) for i in chunks]
        return {key: torch.cat([part[key] for part in drawn])[:count] for key in drawn[0]}

    made = cached(f"digits/scenes-{split}", fingerprint, make) if cache else make()
    return Scenes(**made, classes=DIGITS, fingerprint=fingerprint, name=f"digits/scenes/{split}")


def _draw(split: str, generator: Generator, size: int) -> Tensors:
    # A chunk is always drawn completely, so that a short set is the beginning of a long one.
    present = torch.arange(OBJECTS) < torch.randint(1, OBJECTS + 1, (CHUNK, 1), generator=generator)
    digits = _digits(generator)
    x, y = _centres(generator, size)
    canvas = random_uniform(0, 0.35, CHUNK, 3, 1, 1, generator=generator)
    canvas = canvas + 0.4 * (random_clouds(CHUNK, 3, size, size, generator) - 0.5)
    canvas = _clutter(canvas, split, generator)
    instances = torch.zeros((CHUNK, size, size), dtype=torch.uint8)
    areas = []
    for k in range(OBJECTS):
        pose = _pose(generator, x[:, k], y[:, k], size)
        ink = draw_glyphs(pick_glyphs(split, digits[:, k], generator), pose, size, size)
        ink = (ink * 1.5).clamp(0, 1) * present[:, k, None, None]
        canvas = _paint(canvas, ink, _colour(generator))
        inside = ink > _INK
        areas.append(inside.sum((1, 2)))
        instances = instances.masked_fill(inside, k + 1)
    canvas = canvas + 0.04 * random_normal(canvas.shape, generator)
    labels, boxes = _annotate(digits, instances, torch.stack(areas, 1))
    return {"images": to_bytes(canvas), "instances": instances, "labels": labels, "boxes": boxes}


def _digits(generator: Generator) -> Tensor:
    theme = torch.randint(0, _THEMES, (CHUNK,), generator=generator)
    edges = _cumulative()[theme]
    drawn = torch.rand((CHUNK, OBJECTS), generator=generator, dtype=torch.float64)
    return (drawn[:, :, None] >= edges[:, None, :-1]).sum(-1)


@lru_cache(maxsize=1)
def _cumulative() -> Tensor:
    """Cumulative class frequencies of each theme: -> (themes, 10) float64."""
    random = np.random.default_rng(7)
    tail = np.exp(-np.log(_IMBALANCE) * np.arange(10) / 9)[random.permutation(10)]
    shares = tail * np.exp(_SPREAD * random.standard_normal((_THEMES, 10)))
    shares = shares / shares.sum(1, keepdims=True)
    return torch.from_numpy(shares.cumsum(1))


def _centres(generator: Generator, size: int) -> tuple[Tensor, Tensor]:
    cells = torch.rand((CHUNK, _CELLS * _CELLS), generator=generator).argsort(dim=1, stable=True)
    cells = cells[:, :OBJECTS]
    side = size / _CELLS
    jitter = random_uniform(-0.3, 0.3, 2, CHUNK, OBJECTS, generator=generator)
    across, down = cells % _CELLS, cells.div(_CELLS, rounding_mode="floor")
    return (across + 0.5 + jitter[0]) * side, (down + 0.5 + jitter[1]) * side


def _pose(generator: Generator, x: Tensor, y: Tensor, size: int) -> Pose:
    return Pose(
        x=x,
        y=y,
        half=random_uniform(9.5, 14, CHUNK, generator=generator) * (size / 64),
        angle=random_angle(15, CHUNK, generator=generator),
        shear=random_uniform(-0.2, 0.2, CHUNK, generator=generator),
        aspect=random_uniform(0.75, 1.0, CHUNK, generator=generator),
    )


def _clutter(canvas: Tensor, split: str, generator: Generator) -> Tensor:
    """Add half a digit of any colour to six scenes of ten: (B, 3, S, S) -> (B, 3, S, S)."""
    size = canvas.shape[-1]
    digits = torch.randint(0, 10, (CHUNK,), generator=generator)
    glyphs = pick_glyphs(split, digits, generator)
    glyphs[:, :, 4:] = 0
    pose = Pose(
        x=random_uniform(0, size, CHUNK, generator=generator),
        y=random_uniform(0, size, CHUNK, generator=generator),
        half=random_uniform(4, 9, CHUNK, generator=generator) * (size / 64),
        angle=random_angle(180, CHUNK, generator=generator),
        shear=random_uniform(-0.4, 0.4, CHUNK, generator=generator),
    )
    ink = (draw_glyphs(glyphs, pose, size, size) * 1.4).clamp(0, 1)
    shown = torch.rand((CHUNK, 1, 1), generator=generator) < 0.6
    return _paint(canvas, ink * shown, torch.rand((CHUNK, 3), generator=generator))


def _paint(canvas: Tensor, ink: Tensor, colour: Tensor) -> Tensor:
    ink = ink[:, None]
    return canvas * (1 - ink) + colour[:, :, None, None] * ink


def _colour(generator: Generator) -> Tensor:
    """Bright RGB colours of any hue and low saturation: -> (B, 3)."""
    hue = torch.rand((CHUNK, 1), generator=generator)
    saturation = random_uniform(0, 0.6, CHUNK, 1, generator=generator)
    value = random_uniform(0.75, 1.0, CHUNK, 1, generator=generator)
    # The usual conversion from hue, saturation, value, with its six cases folded into one ramp.
    ramp = (hue * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    return value - value * saturation * torch.minimum(ramp, 4 - ramp).clamp(0, 1)


def _annotate(digits: Tensor, instances: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and boxes of the visible part of each object: -> (B, K), (B, K, 4)."""
    masks = instances[:, None] == torch.arange(1, OBJECTS + 1).view(1, -1, 1, 1)
    visible = masks.sum((2, 3))
    counts = (visible >= _PIXELS) & (visible >= _FRACTION * areas)
    left, right = _extent(masks.any(2))
    top, bottom = _extent(masks.any(3))
    boxes = torch.stack([left, top, right, bottom], -1).float() * counts[..., None]
    return digits.where(counts, -1), boxes


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First true index, and the last plus one: (B, K, S) -> (B, K), (B, K)."""
    places = torch.arange(line.shape[-1])
    first = places.where(line, line.shape[-1]).amin(-1)
    return first, places.where(line, -1).amax(-1) + 1

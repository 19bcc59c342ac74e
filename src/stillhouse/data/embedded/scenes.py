"""Scenes of several coloured digits, with labels, boxes and masks out of one drawing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from stillhouse.data.cache import Tensors, cached
from stillhouse.data.embedded.glyphs import (
    CHUNK,
    DIGITS,
    Pose,
    between,
    check_split,
    clouds,
    draw,
    generator_of,
    noise,
    pick,
    random_angle,
    to_bytes,
)
from stillhouse.data.source import fingerprint_of_recipe
from stillhouse.data.targets import IGNORE
from stillhouse.errors import UserError

OBJECTS = 4  # at most, in a scene


_VERSION = 1
_CELLS = 3  # a scene is a grid of so many cells a side, and an object has a cell to itself
_THEMES = 4  # each scene has a theme, and each theme its own class frequencies
_TAIL = 4.0  # the commonest class over the rarest one, before themes
_SPREAD = 0.9  # of the log-normal factor by which a theme changes a class
_INK = 0.45  # from here on, a pixel belongs to a digit
_PIXELS, _SHARE = 12, 0.35  # what of an object must be seen for it to count


@dataclass(frozen=True, eq=False)
class Scenes:
    """Images with several objects each; object `k` is the pixels of `instances == k + 1`."""

    images: Tensor  # (N, 3, S, S) uint8
    instances: Tensor  # (N, S, S) uint8, 0 where no object is seen
    labels: Tensor  # (N, K) int64, -1 where there is no object, or too little of it
    boxes: Tensor  # (N, K, 4) float32: left, top, right, bottom of what is seen, in pixels
    classes: tuple[str, ...]
    fingerprint: str
    name: str

    def __len__(self) -> int:
        return len(self.labels)


def multilabel(scenes: Scenes) -> Tensor:
    """Which classes a scene holds: -> (N, classes) float of 0 and 1."""
    count = len(scenes.classes)
    found = torch.zeros(len(scenes), count + 1)
    found.scatter_(1, scenes.labels.where(scenes.labels >= 0, count), 1.0)
    return found[:, :count]


def semantic(scenes: Scenes) -> Tensor:
    """Class of every pixel: 0 background, class + 1, 255 for objects to ignore: -> (N, S, S)."""
    names = (scenes.labels + 1).where(scenes.labels >= 0, IGNORE)
    names = torch.nn.functional.pad(names, (1, 0))  # instance 0 is the background
    return names.gather(1, scenes.instances.flatten(1).long()).view(scenes.instances.shape)


def scenes(split: str, count: int, seed: int = 0, size: int = 48, cache: bool = False) -> Scenes:
    """Scenes of one to four overlapping digits of ten unevenly frequent classes.

    The first scenes of a longer set are those of a shorter one with the same options.
    """
    check_split(split)
    if count < 1 or size < 24:
        raise UserError("digits/scenes needs a count of 1 and a size of 24, or more")
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
        drawn = [_draw(split, generator_of(seed, split, i), size) for i in chunks]
        return {key: torch.cat([part[key] for part in drawn])[:count] for key in drawn[0]}

    made = cached(f"digits/scenes-{split}", fingerprint, make) if cache else make()
    return Scenes(**made, classes=DIGITS, fingerprint=fingerprint, name=f"digits/scenes/{split}")


def _draw(split: str, generator: Generator, size: int) -> Tensors:
    # A chunk is always drawn whole, which is what makes a short set the beginning of a long one.
    present = torch.arange(OBJECTS) < torch.randint(1, OBJECTS + 1, (CHUNK, 1), generator=generator)
    digits = _digits(generator)
    x, y = _centres(generator, size)
    canvas = between(0, 0.35, CHUNK, 3, 1, 1, generator=generator)
    canvas = canvas + 0.4 * (clouds(CHUNK, 3, size, size, generator) - 0.5)
    canvas = _clutter(canvas, split, generator)
    instances = torch.zeros((CHUNK, size, size), dtype=torch.uint8)
    areas = []
    for k in range(OBJECTS):
        pose = _pose(generator, x[:, k], y[:, k], size)
        ink = draw(pick(split, digits[:, k], generator), pose, size, size)
        ink = (ink * 1.5).clamp(0, 1) * present[:, k, None, None]
        canvas = _paint(canvas, ink, _colour(generator))
        inside = ink > _INK
        areas.append(inside.sum((1, 2)))
        instances = instances.masked_fill(inside, k + 1)
    canvas = canvas + 0.04 * noise(canvas.shape, generator)
    labels, boxes = _annotate(digits, instances, torch.stack(areas, 1))
    return {"images": to_bytes(canvas), "instances": instances, "labels": labels, "boxes": boxes}


def _digits(generator: Generator) -> Tensor:
    theme = torch.randint(0, _THEMES, (CHUNK,), generator=generator)
    edges = _cumulative()[theme]
    drawn = torch.rand((CHUNK, OBJECTS), generator=generator, dtype=torch.float64)
    return (drawn[:, :, None] >= edges[:, None, :-1]).sum(-1)


@lru_cache(maxsize=1)
def _cumulative() -> Tensor:
    """How often each theme draws each class, summed up: -> (themes, 10) float64."""
    random = np.random.default_rng(7)
    tail = np.exp(-np.log(_TAIL) * np.arange(10) / 9)[random.permutation(10)]
    shares = tail * np.exp(_SPREAD * random.standard_normal((_THEMES, 10)))
    shares = shares / shares.sum(1, keepdims=True)
    return torch.from_numpy(shares.cumsum(1))


def _centres(generator: Generator, size: int) -> tuple[Tensor, Tensor]:
    cells = torch.rand((CHUNK, _CELLS * _CELLS), generator=generator).argsort(dim=1, stable=True)
    cells = cells[:, :OBJECTS]
    side = size / _CELLS
    jitter = between(-0.3, 0.3, 2, CHUNK, OBJECTS, generator=generator)
    across, down = cells % _CELLS, cells.div(_CELLS, rounding_mode="floor")
    return (across + 0.5 + jitter[0]) * side, (down + 0.5 + jitter[1]) * side


def _pose(generator: Generator, x: Tensor, y: Tensor, size: int) -> Pose:
    return Pose(
        x=x,
        y=y,
        half=between(9.5, 14, CHUNK, generator=generator) * (size / 64),
        angle=random_angle(15, CHUNK, generator=generator),
        shear=between(-0.2, 0.2, CHUNK, generator=generator),
        aspect=between(0.75, 1.0, CHUNK, generator=generator),
    )


def _clutter(canvas: Tensor, split: str, generator: Generator) -> Tensor:
    """Half a digit in six scenes of ten, of any colour: (B, 3, S, S) -> (B, 3, S, S)."""
    size = canvas.shape[-1]
    digits = torch.randint(0, 10, (CHUNK,), generator=generator)
    glyphs = pick(split, digits, generator)
    glyphs[:, :, 4:] = 0
    pose = Pose(
        x=between(0, size, CHUNK, generator=generator),
        y=between(0, size, CHUNK, generator=generator),
        half=between(4, 9, CHUNK, generator=generator) * (size / 64),
        angle=random_angle(180, CHUNK, generator=generator),
        shear=between(-0.4, 0.4, CHUNK, generator=generator),
    )
    ink = (draw(glyphs, pose, size, size) * 1.4).clamp(0, 1)
    shown = torch.rand((CHUNK, 1, 1), generator=generator) < 0.6
    return _paint(canvas, ink * shown, torch.rand((CHUNK, 3), generator=generator))


def _paint(canvas: Tensor, ink: Tensor, colour: Tensor) -> Tensor:
    ink = ink[:, None]
    return canvas * (1 - ink) + colour[:, :, None, None] * ink


def _colour(generator: Generator) -> Tensor:
    """Bright colours of any hue and little saturation, as red, green, blue: -> (B, 3)."""
    hue = torch.rand((CHUNK, 1), generator=generator)
    saturation = between(0, 0.6, CHUNK, 1, generator=generator)
    value = between(0.75, 1.0, CHUNK, 1, generator=generator)
    # The usual conversion from hue, saturation, value, with its six cases folded into one ramp.
    ramp = (hue * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    return value - value * saturation * torch.minimum(ramp, 4 - ramp).clamp(0, 1)


def _annotate(digits: Tensor, instances: Tensor, areas: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and boxes of what is seen of each object: -> (B, K), (B, K, 4)."""
    seen = instances[:, None] == torch.arange(1, OBJECTS + 1).view(1, -1, 1, 1)
    visible = seen.sum((2, 3))
    counts = (visible >= _PIXELS) & (visible >= _SHARE * areas)
    left, right = _extent(seen.any(2))
    top, bottom = _extent(seen.any(3))
    boxes = torch.stack([left, top, right, bottom], -1).float() * counts[..., None]
    return digits.where(counts, -1), boxes


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last true place: (B, K, S) -> (B, K), (B, K)."""
    places = torch.arange(line.shape[-1])
    first = places.where(line, line.shape[-1]).amin(-1)
    return first, places.where(line, -1).amax(-1) + 1

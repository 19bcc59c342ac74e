"""Real handwritten digits, 8x8, from scikit-learn, and drawing with them.

All arithmetic here is elementwise: additions, products and gathers in float32, which IEEE 754
rounds identically everywhere, and transcendental functions in float64 rounded to float32. There is
no matrix product, no fused interpolation and no reduction whose order depends on threads or on
vector width. So for one seed the pixels are the same on every machine whose torch draws the same
numbers from a CPU generator.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from stillhouse.data.random import derive_seed
from stillhouse.errors import UserError, did_you_mean, quote

SPLITS = ("train", "val", "test")
DIGITS = tuple("0123456789")
CHUNK = 500  # images per random stream: another value gives other data

_FRACTIONS = (0.6, 0.8)  # where val and test begin in the shuffled images of a class
_SPLIT_SEED = 1234


class DigitBank(NamedTuple):
    """The handwritten digits of one split, sorted by class."""

    images: Tensor  # (M, 8, 8) uint8, from 0 to 16
    labels: Tensor  # (M,) int64
    starts: Tensor  # (10,) index of the first image of each class
    counts: Tensor  # (10,) images per class
    indices: Tensor  # (M,) into the data of scikit-learn


class Pose(NamedTuple):
    """The position and shape of a glyph on a canvas, in pixels and radians."""

    x: Tensor  # (B,) centre
    y: Tensor  # (B,)
    half: Tensor  # (B,) half of its height
    angle: Tensor  # (B,)
    shear: Tensor  # (B,)
    aspect: Tensor | float = 1.0  # (B,) width over height


@lru_cache(maxsize=3)
def digit_bank(split: str) -> DigitBank:
    """The digits of one split; the three splits share no image."""
    check_split(split)
    images, labels = read_digits()
    shuffle = np.random.default_rng(_SPLIT_SEED)
    chosen = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        shuffle.shuffle(members)
        ends = [0, *(round(fraction * len(members)) for fraction in _FRACTIONS), len(members)]
        place = SPLITS.index(split)
        chosen.append(members[ends[place] : ends[place + 1]])
    counts = torch.tensor([len(members) for members in chosen])
    indices = np.concatenate(chosen)
    return DigitBank(
        torch.from_numpy(images[indices].astype(np.uint8).reshape(-1, 8, 8)),
        torch.from_numpy(labels[indices].astype(np.int64)),
        counts.cumsum(0) - counts,
        counts,
        torch.from_numpy(indices),
    )


def read_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What `sklearn.datasets.load_digits` returns: images (1797, 64) and labels (1797,).

    They are read from the file of scikit-learn, since importing the package takes a second.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64)


def check_split(split: str, known: tuple[str, ...] = SPLITS, name: str = "digits") -> None:
    """Raise a UserError for an unknown split."""
    if split not in known:
        hint = did_you_mean(split, known)
        raise UserError(f"{name} has no split {quote(split)}, only {', '.join(known)}{hint}")


def chunk_generator(seed: int, split: str, chunk: int) -> Generator:
    """The random stream of one chunk of one split."""
    return torch.Generator().manual_seed(derive_seed(seed, SPLITS.index(split), chunk))


def random_uniform(low: float, high: float, *shape: int, generator: Generator) -> Tensor:
    """Uniform numbers: -> shape."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def random_normal(shape: torch.Size, generator: Generator) -> Tensor:
    """Normal numbers: -> shape."""
    # In float64 because the float32 stream of torch depends on the vector unit in its last bits.
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


def pick_glyphs(split: str, digits: Tensor, generator: Generator) -> Tensor:
    """A random handwritten image of each digit, from 0 to 1: (B,) -> (B, 8, 8)."""
    images, _, starts, counts, _ = digit_bank(split)
    which = (torch.rand(digits.shape, generator=generator) * counts[digits]).long()
    return images[starts[digits] + which].float() / 16


def draw_glyphs(glyphs: Tensor, pose: Pose, height: int, width: int) -> Tensor:
    """Glyphs drawn on an empty canvas, bilinear: (B, 8, 8) -> (B, height, width) of ink."""
    cos, sin = (f(pose.angle.double()).float() for f in (torch.cos, torch.sin))
    across, down = pose.half * pose.aspect, pose.half
    x = (torch.arange(width) + 0.5) - pose.x[:, None]
    y = (torch.arange(height) + 0.5) - pose.y[:, None]
    # From canvas pixels back to glyph pixels; a glyph spans -1..1 before the last two factors.
    columns = _sum(cos / across, x, (sin + pose.shear) / across, y)
    rows = _sum(-sin / down, x, cos / down, y)
    return _sample(glyphs, (columns + 1) * 4 - 0.5, (rows + 1) * 4 - 0.5)


def _sum(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return (a[:, None] * x)[:, None, :] + (b[:, None] * y)[:, :, None]


def _sample(glyphs: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    # Padded with empty pixels, onto which coordinates outside of the glyph are clamped.
    padded = torch.nn.functional.pad(glyphs, (1, 1, 1, 1)).flatten(1)
    columns, rows = columns.clamp(-1, 8) + 1, rows.clamp(-1, 8) + 1
    left, top = columns.floor().clamp(max=8), rows.floor().clamp(max=8)
    right_weight, lower_weight = columns - left, rows - top
    corner = (top * 10 + left).long().flatten(1)

    def at(offset: int) -> Tensor:
        return padded.gather(1, corner + offset).view(rows.shape)

    upper = at(0) * (1 - right_weight) + at(1) * right_weight
    lower = at(10) * (1 - right_weight) + at(11) * right_weight
    return upper * (1 - lower_weight) + lower * lower_weight


def random_clouds(
    batch: int, channels: int, height: int, width: int, generator: Generator
) -> Tensor:
    """A smooth random background from 0 to 1: -> (batch, channels, height, width)."""
    knots = torch.rand((batch, channels, 4, 4), generator=generator)
    for dim, size in ((2, height), (3, width)):
        place = torch.arange(size) * 3 / (size - 1)
        low = place.floor().clamp(max=2)
        share = (place - low).view(-1, *(1,) * (3 - dim))
        first = knots.index_select(dim, low.long())
        second = knots.index_select(dim, low.long() + 1)
        knots = first * (1 - share) + second * share
    return knots


def to_bytes(images: Tensor) -> Tensor:
    """Brightness from 0 to 1, clipped, as bytes."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def random_angle(degrees: float, *shape: int, generator: Generator) -> Tensor:
    """Angles within so many degrees, in radians: -> shape."""
    return random_uniform(-degrees, degrees, *shape, generator=generator) * (math.pi / 180)

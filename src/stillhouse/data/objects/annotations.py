"""What a reader of objects finds in its files, and what is done about problems of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillhouse.data.problems import BoolArray, check_choice

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CHOICES = {
    "missing": ("skip", "fail"),
    "broken": ("skip", "fail"),
    "unknown": ("skip", "fail"),
    "reversed": ("swap", "skip", "fail"),
    "outside": ("clip", "keep", "skip", "fail"),
    "flat": ("keep", "skip", "fail"),
    "duplicates": ("keep", "skip", "fail"),
    "empty": ("keep", "skip", "fail"),
}


@dataclass(frozen=True)
class ObjectPolicy:
    """What to do with images and boxes that have a problem, in the order in which it is done."""

    missing: str = "fail"  # images that do not exist
    broken: str = "fail"  # images that cannot be read
    unknown: str = "fail"  # objects of another class
    reversed: str = "fail"  # boxes with x2 < x1 or y2 < y1
    outside: str = "clip"  # boxes that reach outside of their image
    flat: str = "skip"  # boxes that are less than a pixel wide or high
    duplicates: str = "keep"  # boxes that repeat another of the same image and class
    empty: str = "keep"  # images without objects

    def __post_init__(self) -> None:
        for field in fields(self):
            check_choice(field.name, getattr(self, field.name), CHOICES[field.name])


@dataclass(frozen=True, eq=False)
class Annotations:
    """N images and M objects as they are annotated."""

    name: str
    root: Path
    paths: Sequence[str]  # N, relative to the root, with slashes
    shapes: IntArray  # (N, 2) height and width, 0 where the annotations do not say
    boxes: FloatArray  # (M, 4) x1, y1, x2, y2 in pixels, or in fractions of the image
    labels: IntArray  # (M,) index of the class, -1 if it is unknown
    image: IntArray  # (M,) index of the image, in any order
    classes: tuple[str, ...]
    place: Callable[[int], str]  # the file and record of an object
    label: Callable[[int], str]  # its class as it is written there
    remedy: str  # for an unknown class
    fractions: bool = False
    crowd: BoolArray | None = None  # (M,)
    difficult: BoolArray | None = None  # (M,)
    area: FloatArray | None = None  # (M,) in pixels
    notes: tuple[str, ...] = ()

"""Checks of annotated boxes: wrong corners, outside of the image, without area, repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from stillhouse.data.objects.annotations import Annotations, FloatArray, IntArray, ObjectPolicy
from stillhouse.data.objects.images import Usable
from stillhouse.data.problems import BoolArray, Problem, settle
from stillhouse.errors import UserError

_BEYOND = 0.1  # pixels: a box that reaches less far outside of its image was rounded
_ROUNDING = 0.01  # pixels by which a box that is one pixel wide may be narrower in a file


@dataclass(frozen=True, eq=False)
class Rows:
    """K of the M annotated objects, in the order of their images."""

    index: IntArray  # (K,) in the annotations
    image: IntArray  # (K,) among the usable images
    labels: IntArray  # (K,)
    boxes: FloatArray  # (K, 4) x1, y1, x2, y2 in pixels
    shapes: IntArray  # (K, 2) height and width of the image

    def select(self, kept: BoolArray) -> Rows:
        """Some of the rows: (K,) -> fewer rows."""
        return Rows(
            self.index[kept],
            self.image[kept],
            self.labels[kept],
            self.boxes[kept],
            self.shapes[kept],
        )


def usable_objects(
    found: Annotations, images: Usable, policy: ObjectPolicy
) -> tuple[Rows, tuple[str, ...]]:
    """The objects of the usable images, checked and changed as the policy says, and notes."""
    rows = in_pixels(found, images)
    notes: list[str] = []
    for check in _CHECKS:
        choice = getattr(policy, check.problem.option)
        if choice == "keep":
            continue
        kept, more = _settled(found, rows, check, choice)
        rows = rows.select(kept)
        if check.mend is not None:
            rows = replace(rows, boxes=check.mend(rows))
        notes += more
    return rows, tuple(notes)


def in_pixels(found: Annotations, images: Usable) -> Rows:
    """The objects of the usable images with boxes in pixels, sorted by image.

    Raises a UserError for a coordinate that is NaN or infinite.
    """
    finite = np.isfinite(found.boxes).all(1)
    if not finite.all():
        wrong = int(finite.argmin())
        raise UserError(
            f"{found.place(wrong)}: the numbers of the box must be finite, got "
            f"{found.boxes[wrong].tolist()}; correct them"
        )
    place = np.full(len(found.paths), -1)
    place[images.rows] = np.arange(len(images.rows))
    index = np.argsort(place[found.image], kind="stable")
    index = index[place[found.image[index]] >= 0]
    image = place[found.image[index]]
    shapes, boxes = images.shapes[image], found.boxes[index]
    if found.fractions:
        boxes = boxes * shapes[:, [1, 0, 1, 0]]
    return Rows(index, image, found.labels[index], boxes, shapes)


class _Check(NamedTuple):
    problem: Problem
    find: Callable[[Rows], BoolArray]  # the affected: -> (K,)
    mend: Callable[[Rows], FloatArray] | None = None  # all boxes without the problem: -> (K, 4)


def _settled(
    found: Annotations, rows: Rows, check: _Check, choice: str
) -> tuple[BoolArray, tuple[str, ...]]:
    problem = check.problem
    if problem.option == "unknown":
        text = f"objects are of none of the {len(found.classes)} classes"
        problem = problem._replace(text=text, remedy=found.remedy)

    def place(number: int) -> str:
        i = int(rows.index[number])
        label = f"{found.label(i)} in " if problem.option == "unknown" else ""
        return label + found.place(i)

    return settle(found.name, problem, check.find(rows), choice, place)


def _is_unknown(rows: Rows) -> BoolArray:
    return rows.labels < 0


def _is_reversed(rows: Rows) -> BoolArray:
    return np.asarray((rows.boxes[:, 2:] < rows.boxes[:, :2]).any(1))


def _swapped(rows: Rows) -> FloatArray:
    first, second = rows.boxes[:, :2], rows.boxes[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], 1)


def _is_outside(rows: Rows) -> BoolArray:
    return np.asarray((np.abs(rows.boxes - _clipped(rows)) > _BEYOND).any(1))


def _clipped(rows: Rows) -> FloatArray:
    return np.clip(rows.boxes, 0, rows.shapes[:, [1, 0, 1, 0]])


def _is_flat(rows: Rows) -> BoolArray:
    sides = rows.boxes[:, 2:] - rows.boxes[:, :2]
    return np.asarray((sides < 1 - _ROUNDING).any(1))


def _is_repeated(rows: Rows) -> BoolArray:
    """Which objects have the image, class and box of an earlier one: -> (K,)."""
    keys = np.column_stack([rows.image, rows.labels, rows.boxes])
    order = np.lexsort(keys.T)  # stable, so the first of equal rows stays the first
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(1)
    return repeated


_CHECKS = (
    _Check(Problem("unknown", "", ""), _is_unknown),
    _Check(
        Problem(
            "reversed",
            "boxes have x2 < x1 or y2 < y1",
            "correct them, exchange the corners with reversed='swap'",
        ),
        _is_reversed,
        _swapped,
    ),
    _Check(
        Problem(
            "outside",
            "boxes reach outside of their image",
            "correct them, clip them with outside='clip'",
        ),
        _is_outside,
        _clipped,
    ),
    _Check(
        Problem(
            "flat",
            "boxes are less than one pixel wide or high",
            "correct them, keep them with flat='keep'",
        ),
        _is_flat,
    ),
    _Check(
        Problem(
            "duplicates",
            "objects repeat the box and class of another",
            "remove them, keep them with duplicates='keep'",
        ),
        _is_repeated,
    ),
)

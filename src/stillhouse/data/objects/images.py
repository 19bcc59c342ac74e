"""Which annotated images can be used, and how large they are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from stillhouse.data.images import are_readable, find_missing, read_shapes
from stillhouse.data.objects.annotations import Annotations, IntArray, ObjectPolicy
from stillhouse.data.problems import BoolArray, Problem, settle

_MISSING = Problem("missing", "images do not exist", "put them there")
_BROKEN = Problem("broken", "images cannot be read", "repair them")


class Usable(NamedTuple):
    """K of the N images of the annotations."""

    rows: IntArray  # (K,) in the annotations, increasing
    shapes: IntArray  # (K, 2) height and width, positive
    notes: tuple[str, ...]


def usable_images(found: Annotations, policy: ObjectPolicy) -> Usable:
    """The images that exist and can be read, with their shapes.

    The header is read where the annotations give no shape; with broken=skip all images are decoded.
    """
    absent = find_missing(found.root, found.paths)
    kept, notes = _settled(found, np.arange(len(absent)), _MISSING, absent, policy)
    rows = np.flatnonzero(kept)
    shapes = found.shapes[rows]
    unknown = np.flatnonzero((shapes <= 0).any(1))
    read = read_shapes(_files(found, rows[unknown]))
    shapes[unknown] = np.array(read, dtype=np.int64).reshape(-1, 2)
    broken: BoolArray = np.asarray((shapes <= 0).any(1))
    if policy.broken == "skip":  # otherwise, a broken image raises when it is read
        broken = broken | ~np.array(are_readable(_files(found, rows)), dtype=bool)
    kept, more = _settled(found, rows, _BROKEN, broken, policy)
    return Usable(rows[kept], shapes[kept], (*notes, *more))


def _files(found: Annotations, rows: IntArray) -> list[Path]:
    return [found.root / found.paths[row] for row in rows.tolist()]


def _settled(
    found: Annotations,
    rows: IntArray,
    problem: Problem,
    affected: BoolArray,
    policy: ObjectPolicy,
) -> tuple[BoolArray, tuple[str, ...]]:
    choice = getattr(policy, problem.option)

    def path(number: int) -> str:
        return str(found.root / found.paths[int(rows[number])])

    return settle(found.name, problem, affected, choice, path)

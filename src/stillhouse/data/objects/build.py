"""From annotations to a source."""

from __future__ import annotations

from itertools import compress

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.objects.annotations import Annotations, IntArray, ObjectPolicy
from stillhouse.data.objects.boxes import Rows, usable_objects
from stillhouse.data.objects.images import usable_images
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import Problem, settle
from stillhouse.errors import UserError

_EMPTY = Problem("empty", "images have no objects", "annotate them, keep them with empty='keep'")


def build_source(found: Annotations, policy: ObjectPolicy) -> ObjectSource:
    """The source of annotated images, without what the policy skips.

    Raises a UserError for a problem where the policy is to fail, or if no image is left.
    """
    return build_with_rows(found, policy)[0]


def build_with_rows(found: Annotations, policy: ObjectPolicy) -> tuple[ObjectSource, IntArray]:
    """The same source, and which of the annotated objects its M objects are: -> (M,)."""
    images = usable_images(found, policy)
    rows, notes = usable_objects(found, images, policy)
    paths = [found.paths[i] for i in images.rows]
    empty = np.bincount(rows.image, minlength=len(paths)) == 0
    kept, more = settle(
        found.name, _EMPTY, empty, policy.empty, lambda i: str(found.root / paths[i])
    )
    notes = (*found.notes, *images.notes, *notes, *more)
    if not kept.any():
        why = "; ".join(note.removeprefix(f"{found.name}: ") for note in notes)
        raise UserError(f"{found.name}: no images are left in {found.root}{why and f' ({why})'}")
    objects = make_objects(found, rows, len(paths))
    source = ObjectSource(
        found.root,
        tuple(compress(paths, kept)),
        torch.from_numpy(images.shapes[kept]),
        objects.rows(torch.from_numpy(np.flatnonzero(kept))),
        found.classes,
        found.name,
        notes,
    )
    return source, rows.index  # images that are not kept have no objects


def make_objects(found: Annotations, rows: Rows, images: int) -> Objects:
    """The rows as objects of so many images."""

    def part(values: np.ndarray | None, dtype: torch.dtype) -> Tensor | None:
        return None if values is None else torch.from_numpy(values[rows.index]).to(dtype)

    return Objects(
        torch.from_numpy(rows.boxes).float(),
        torch.from_numpy(rows.labels),
        torch.from_numpy(rows.image),
        images,
        crowd=part(found.crowd, torch.bool),
        difficult=part(found.difficult, torch.bool),
        area=part(found.area, torch.float32),
    )

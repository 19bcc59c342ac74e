"""The sites of networks with masks: cells or proposals, and the masks of the student's positives.

Rows of `mask` are masks that the student is trained on, with a logit for each pixel; the teacher's
are those of the same cells or regions. Their target is the mask of the object, and losses are means
over rows. Without labels there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.cell_assignment import CellAssignment
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.two_stage import TwoStage, TwoStageAssignment
from stillhouse.tasks.region_sites import region_sites
from stillhouse.types import Site, Sites

MASK = "mask"
CELL_SITES = (
    "class",  # all cells
    "class_main",  # cells with an object
    "class_gated",  # cells of grids with an object
)
LABELLED_CELL_SITES = CELL_SITES[1:]  # whose rows are known from labels


def cell_sites(student: CellMasks, teacher: CellMasks, assigned: CellAssignment | None) -> Sites:
    """The sites of two networks on the same grids, with masks of one size.

    Rows of `class` are the cells of all grids and images, N P of them, with C logits each. Their
    mass is the sum over images of max(positives, 1), their target the class, -1 for background.
    """
    weights: dict[str, Callable[[Tensor], Tensor]] = {
        "class": torch.ones_like,
        "class_main": lambda positive: positive,
        "class_gated": partial(gated, counts=student.counts),
    }
    makers: dict[str, Callable[[], Site]] = {
        name: partial(cell_scores, student, teacher, assigned, weights[name]) for name in CELL_SITES
    }
    return Sites({**makers, MASK: partial(cell_masks, student, teacher, assigned)})


def cell_scores(
    student: CellMasks,
    teacher: CellMasks,
    assigned: CellAssignment | None,
    weigh: Callable[[Tensor], Tensor],
) -> Site:
    """The class scores of all cells; `weigh` says which count: positive (N, P) -> (N, P) bool."""
    own, others = student.scores.flatten(0, 1), teacher.scores.flatten(0, 1)
    dtype = upcast(own).dtype
    if assigned is None:
        positive = torch.zeros_like(student.scores[..., 0], dtype=torch.bool)
        labels, mass = (
            torch.full_like(positive, -1, dtype=torch.int64),
            own.new_tensor(len(student)),
        )
    else:
        positive, labels, mass = assigned.positive, assigned.labels, assigned.mass
    weight = weigh(positive).flatten().to(dtype)
    return Site(own, others, labels.flatten(), weight, mass.to(dtype))


def gated(positive: Tensor, counts: list[int]) -> Tensor:
    """Cells of the grids that have an object in the batch of this rank: (N, P) -> (N, P)."""
    opened = [grid.any().expand(len(grid)) for grid in positive.any(0).split(counts)]
    return torch.cat(opened).expand_as(positive)


def cell_masks(student: CellMasks, teacher: CellMasks, assigned: CellAssignment | None) -> Site:
    """The masks of the student's cells with an object: rows (R, h w)."""
    if assigned is None:
        rows = torch.zeros(0, 2, dtype=torch.int64, device=student.scores.device)
        target = student.features.new_zeros(0, *student.mask_size, dtype=torch.bool)
    else:
        rows, target = assigned.rows, assigned.row_masks
    with torch.no_grad():
        others = teacher.mask_logits(rows)
    return mask_rows(student.mask_logits(rows), others, target)


def masked_region_sites(
    student: TwoStage,
    teacher: TwoStage,
    assigned: TwoStageAssignment | None,
    objects: Objects | None,
) -> Sites:
    """The sites of two-stage detectors, and `mask`: the student's sampled regions with an object.

    Both networks are compared at their first stage.
    """
    found = region_sites(student, teacher, objects)
    return found.joined(Sites({MASK: partial(region_masks, student, teacher, assigned)}))


def region_masks(student: TwoStage, teacher: TwoStage, assigned: TwoStageAssignment | None) -> Site:
    """The masks of the regions that the student trains on: rows (R, m m)."""
    if assigned is None:
        none = torch.zeros(0, dtype=torch.int64, device=student.levels[0].device)
        boxes, image, labels = upcast(student.levels[0]).new_zeros(0, 4), none, none
        own = student.mask_logits(boxes, image, labels)
        target = own.detach()
    else:
        first = assigned.stages[0]
        assert first.masks is not None
        rows, own, target = first.masks.rows, first.masks.logits, first.masks.targets
        boxes, image = first.regions.boxes[rows], first.regions.image[rows]
        labels = first.labels[rows]
    with torch.no_grad():
        others = teacher.mask_logits(boxes, image, labels)
    return mask_rows(own, others, target)


def mask_rows(student: Tensor, teacher: Tensor, target: Tensor) -> Site:
    """Masks as rows; raises UserError for those of different sizes: (R, h, w) each."""
    if student.shape != teacher.shape:
        sizes = [" x ".join(map(str, masks.shape[1:])) for masks in (student, teacher)]
        raise UserError(
            f"the masks of regions have {sizes[0]} pixels in the student and {sizes[1]} in the "
            "teacher, so they cannot be compared; give both mask heads the same `side`"
        )
    return Site(student.flatten(1), teacher.flatten(1), target.flatten(1))

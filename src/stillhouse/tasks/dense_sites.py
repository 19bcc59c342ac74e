"""The sites of dense detectors: where two of them can be compared, prior by prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.models.detectors.assign import BACKGROUND, Assignment, make_assignment
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.regions import Closeness, valuable_region
from stillhouse.types import Site, Sites

SITES = (
    "class",  # all priors
    "class_main",  # positive priors
    "class_rest",  # the valuable region around them
    "class_gated",  # priors of levels with a positive one
    "box",
    "box_gated",
    "edge",  # the bins of the four sides, of positive priors
    "edge_rest",  # in the valuable region
    "edge_rest_released",  # as the released code of LD has that region
)
LABELLED_SITES = tuple(site for site in SITES if site not in ("class", "box"))  # by objects
SIDES = 4


def dense_sites(
    student: Dense, teacher: Dense, assigned: Assignment | None, objects: Objects | None
) -> Sites:
    """The sites of two detectors on one grid.

    Images without labels are compared like those without objects.
    """
    if assigned is None or objects is None:
        objects = no_objects(student)
        index = torch.full_like(student.scores[..., 0], BACKGROUND, dtype=torch.int64)
        assigned = make_assignment(index, objects, student.priors.boxes)
    return Sites(SiteMaker(student, teacher, assigned, objects).makers())


def no_objects(out: Dense) -> Objects:
    """The objects of images without any."""
    none = torch.zeros(0, dtype=torch.int64, device=out.scores.device)
    return Objects(out.priors.boxes[:0], none, none, len(out.scores))


def scores(student: Dense, teacher: Dense) -> Site:
    """The class scores of all priors: rows (N P, C)."""
    return Site(student.scores.flatten(0, 1), teacher.scores.flatten(0, 1))


def boxes(student: Dense, teacher: Dense) -> Site:
    """The decoded boxes around the point of each prior, in strides: rows (N P, 4)."""
    return Site(relative_boxes(student).flatten(0, 1), relative_boxes(teacher).flatten(0, 1))


def relative_boxes(out: Dense) -> Tensor:
    """x1, y1, x2, y2 from the centre of the prior, in strides: -> (N, P, 4)."""
    points = out.priors.centres
    return (out.decoded - torch.cat([points, points], -1)) / out.priors.stride[:, None]


class SiteMaker:
    """The sites of two detectors with an assignment of objects."""

    def __init__(
        self, student: Dense, teacher: Dense, assigned: Assignment, objects: Objects
    ) -> None:
        self.student, self.teacher = student, teacher
        self.assigned, self.objects = assigned, objects

    def makers(self) -> Mapping[str, Callable[[], Site]]:
        """A function for each site; those of edges only where both networks have bins."""
        every: dict[str, Callable[[], Site]] = {
            "class": partial(self.scores, self.counted),
            "class_main": partial(self.scores, self.main),
            "class_rest": partial(self.scores, self.rest),
            "class_gated": partial(self.scores, self.gated),
            "box": partial(self.boxes, self.counted),
            "box_gated": partial(self.boxes, self.gated),
            "edge": partial(self.edges, self.best_score),
            "edge_rest": partial(self.edges, self.rest),
            "edge_rest_released": partial(self.edges, self.rest_released),
        }
        if has_edges(self.student) and has_edges(self.teacher):
            return every
        return {name: make for name, make in every.items() if not name.startswith("edge")}

    # ------------------------------------------------------------------------------------ weights

    def counted(self) -> Tensor:
        """1 for priors that are positive or background: -> (N, P)."""
        return self.assigned.counted.to(self.dtype)

    def main(self) -> Tensor:
        """1 for positive priors: -> (N, P)."""
        return self.assigned.positive.to(self.dtype)

    def best_score(self) -> Tensor:
        """The student's highest score at positive priors, without a gradient: -> (N, P)."""
        score = self.student.scores.detach().amax(-1).to(self.dtype).sigmoid()
        return score * self.main()

    def rest(self, closeness: Closeness = "diou") -> Tensor:
        """The highest IoU in the valuable region: -> (N, P)."""
        return valuable_region(self.objects, self.student.priors, closeness).to(self.dtype)

    def rest_released(self) -> Tensor:
        """The same for the region of the released code: -> (N, P)."""
        return self.rest("released")

    def gated(self) -> Tensor:
        """1 for priors of levels with a positive prior in the batch of this rank: -> (N, P)."""
        levels = self.assigned.positive.any(0).split(self.student.priors.counts)
        opened = torch.cat([level.any().expand(len(level)) for level in levels])
        return self.counted() * opened

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights, that of decoded boxes."""
        return self.student.priors.boxes.dtype

    # -------------------------------------------------------------------------------------- sites

    def scores(self, weigh: Callable[[], Tensor]) -> Site:
        """Class scores: rows (N P, C), target (N P,) class or -1, mass over images of positives."""
        target, mass = self.assigned.labels.flatten(), self.assigned.mass.to(self.dtype)
        site = scores(self.student, self.teacher)
        return Site(site.student, site.teacher, target, weigh().flatten(), mass)

    def boxes(self, weigh: Callable[[], Tensor]) -> Site:
        """Decoded boxes: rows (N P, 4)."""
        site, mass = boxes(self.student, self.teacher), self.assigned.mass.to(self.dtype)
        return Site(site.student, site.teacher, None, weigh().flatten(), mass)

    def edges(self, weigh: Callable[[], Tensor]) -> Site:
        """The bins of each side: rows (4 N P, bins), with the sum of weights as mass."""
        student, teacher = (
            out.boxes.unflatten(-1, (SIDES, -1)).flatten(0, 2)
            for out in (self.student, self.teacher)
        )
        weight = weigh().flatten().repeat_interleave(SIDES)
        return Site(student, teacher, None, weight, weight.sum())


def has_edges(out: Dense) -> bool:
    """Whether boxes are distributions over the distance of each side."""
    return out.boxes.shape[-1] > 2 * SIDES

"""FCOS (Tian et al., 2019): one point per cell, distances to the sides, centre-ness."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.assign import Assignment, assign_by_centre, make_assignment
from stillhouse.models.detectors.coding import decode_distances
from stillhouse.models.detectors.losses import (
    centre_weight,
    class_total,
    giou_term,
    log_iou_term,
    quality_total,
)
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import PointGrid
from stillhouse.models.detectors.tower import DenseHead
from stillhouse.types import Term, Terms

LATER_RADIUS = 1.5
REACH = 8  # strides: the largest distance to a side that belongs to a level


@dataclass(frozen=True)
class FCOS:
    """Points inside an object whose distances belong to the level; box loss -log IoU.

    With a `radius`, a point must be within so many strides of the centre of its object, too. The
    `later` version of the authors has a radius of 1.5 by default, distances in strides that are cut
    off at 0, GIoU, and centre-ness read from the tower of boxes.
    """

    suppression: Suppression = field(default=Suppression(iou=0.5))
    radius: float | None = None
    later: bool = False
    grid: ClassVar[PointGrid] = PointGrid(0.5)
    neck: ClassVar[dict[str, object]] = {"extra_from": "p5", "relu": True}

    def head(self, before: int, classes: int, levels: int, **options: Any) -> nn.Module:
        """Towers with group norm; centre-ness beside the classes, or later the boxes."""
        read: Literal["class", "box"] = "box" if self.later else "class"
        return DenseHead(before, classes, levels, quality=read, **options)

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """By the largest distance to a side, the smallest object first."""
        bounds = [0.0, *(float(REACH * stride) for stride in out.priors.strides[:-1]), math.inf]
        ranges = list(pairwise(bounds))
        radius = (LATER_RADIUS if self.later else 0.0) if self.radius is None else self.radius
        index = assign_by_centre(objects, out.priors, ranges, radius)
        return make_assignment(index, objects, out.priors.boxes)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class` and `quality` over all positives, `box` weighted by centre-ness over its sum."""
        weight = centre_weight(out, assigned)
        count = assigned.positives.sum().to(weight.dtype)
        box = log_iou_term(out.decoded, assigned, weight)
        if self.later:
            box = giou_term(out.decoded, assigned, weight, 1.0)
        return {
            "class": Term(class_total(out, assigned), count, least=1.0),
            "box": box,
            "quality": Term(quality_total(out, assigned, weight), count, least=1.0),
        }

    def decode(self, out: Dense) -> Tensor:
        """Distances: exponentials in pixels, or later positive parts in strides: -> (N, P, 4)."""
        raw = upcast(out.boxes)
        distances = raw.relu() * out.priors.stride[:, None] if self.later else raw.exp()
        return decode_distances(distances, out.priors.centres)

    def probabilities(self, out: Dense) -> Tensor:
        """Class times centre-ness: -> (N, P, C)."""
        assert out.quality is not None
        return out.scores.sigmoid() * out.quality.sigmoid()[..., None]

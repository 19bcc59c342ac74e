"""What the raw predictions of torchvision's FCOS mean, and its losses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import box_area, centre
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.assign import Assignment, best_objects, make_assignment
from stillhouse.models.detectors.coding import decode_distances, encode_distances
from stillhouse.models.detectors.losses import (
    centre_weight,
    class_total,
    giou_term,
    quality_total,
)
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import Priors
from stillhouse.types import Term, Terms

NEAR, FAR = 4, 8  # anchor sides: the largest distance to a side of the objects of a level


@dataclass(frozen=True)
class TorchvisionFCOS:
    """Points near the centre of an object, GIoU, and a score sqrt(class * centre-ness).

    A point must be within `radius` anchor sides of the centre. Distances are in anchor sides if
    `relative`, else in pixels. Scores of at most `threshold` are 0, because it applies to the
    product and that of `suppression` to the class alone.

    torchvision compares areas in float32 after taking them from 1e8, so that areas which differ by
    less than 8 square pixels are equal and the first object wins; here the smaller one does.
    """

    suppression: Suppression
    threshold: float = 0.2
    radius: float = 1.5
    relative: bool = True

    @classmethod
    def of(cls, model: Any, suppression: Suppression) -> TorchvisionFCOS:
        """The family with the options of a torchvision model."""
        return cls(
            replace(suppression, threshold=0.0),
            suppression.threshold,
            model.center_sampling_radius,
            model.box_coder.normalize_by_size,
        )

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """The smallest object whose centre is near and whose distances belong to the level."""
        priors, boxes = out.priors, objects.boxes.to(out.priors.boxes.dtype)
        points, side = priors.centres, _sides(priors)[:, 0]
        distances = encode_distances(boxes[:, None], points)
        away = (points - centre(boxes)[:, None]).abs().amax(-1)
        fits = (away < self.radius * side) & (distances.amin(-1) > 0)
        first, last = priors.counts[0], priors.counts[-1]
        low = torch.cat([torch.zeros_like(side[:first]), NEAR * side[first:]])
        high = torch.cat([FAR * side[:-last], torch.full_like(side[-last:], math.inf)])
        largest = distances.amax(-1)
        fits &= (largest > low) & (largest < high) & ~objects.ignored[:, None]
        index = best_objects(-box_area(boxes)[:, None].where(fits, math.inf), objects)[1]
        return make_assignment(index, objects, priors.boxes)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class`, `box` and `quality`, each over the number of positives, at least 1."""
        target = centre_weight(out, assigned)
        count = assigned.positives.sum().to(target.dtype)
        return {
            "class": Term(class_total(out, assigned), count, least=1.0),
            "box": giou_term(self.decode(out), assigned, assigned.positive.to(target.dtype), 1.0),
            "quality": Term(quality_total(out, assigned, target), count, least=1.0),
        }

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        distances = upcast(out.boxes)
        if self.relative:
            distances = distances * _sides(out.priors).repeat(1, 2)
        return decode_distances(distances, out.priors.centres)

    def probabilities(self, out: Dense) -> Tensor:
        """The root of class times centre-ness, 0 up to the threshold: -> (N, P, C)."""
        assert out.quality is not None
        product = out.scores.sigmoid() * out.quality.sigmoid()[..., None]
        score = product.sqrt()
        return score.masked_fill(score <= self.threshold, 0)


def _sides(priors: Priors) -> Tensor:
    """Width and height of the anchors: -> (P, 2)."""
    return priors.boxes[:, 2:] - priors.boxes[:, :2]

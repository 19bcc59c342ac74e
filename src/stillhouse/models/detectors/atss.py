"""ATSS (Zhang et al., 2020): one anchor per cell, adaptive assignment, centre-ness."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.models.detectors.assign import Assignment, assign_adaptively, make_assignment
from stillhouse.models.detectors.coding import Deviations, decode_deltas
from stillhouse.models.detectors.losses import (
    centre_weight,
    class_total,
    giou_term,
    quality_total,
)
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import AnchorGrid
from stillhouse.models.detectors.tower import DenseHead
from stillhouse.types import Term, Terms

DEVIATIONS: Deviations = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class ATSS:
    """A square anchor of eight strides; GIoU of decoded boxes, weighted by centre-ness."""

    suppression: Suppression = field(default=Suppression(iou=0.6))
    scale: float = 8.0  # side of the anchor in strides
    candidates: int = 9  # nearest anchors of each level
    neck: ClassVar[dict[str, object]] = {"extra_from": "p5"}

    @property
    def grid(self) -> AnchorGrid:
        """The anchor of a cell."""
        return AnchorGrid((self.scale,))

    def head(self, before: int, classes: int, levels: int, **options: Any) -> nn.Module:
        """Towers with group norm; centre-ness beside the boxes."""
        return DenseHead(before, classes, levels, quality="box", **options)

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """By a threshold of IoU for each object."""
        index = assign_adaptively(objects, out.priors, self.candidates)
        return make_assignment(index, objects, out.priors.boxes)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class`, `quality` over the sum of max(positives, 1), `box` over that of centre-ness."""
        weight = centre_weight(out, assigned)
        mass = assigned.mass.to(weight.dtype)
        return {
            "class": Term(class_total(out, assigned), mass),
            "box": giou_term(out.decoded, assigned, weight, 2.0),
            "quality": Term(quality_total(out, assigned, weight), mass),
        }

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        return decode_deltas(out.boxes, out.priors.boxes, DEVIATIONS)

    def probabilities(self, out: Dense) -> Tensor:
        """Class times centre-ness: -> (N, P, C)."""
        assert out.quality is not None
        return out.scores.sigmoid() * out.quality.sigmoid()[..., None]

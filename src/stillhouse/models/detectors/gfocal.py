"""GFocal (Li et al., 2020): the class score is the quality, and each side is a distribution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.boxes import iou
from stillhouse.functional.focal import distribution_focal, quality_focal
from stillhouse.models.detectors.assign import Assignment, assign_adaptively, make_assignment
from stillhouse.models.detectors.coding import decode_distances, encode_distances, expected_bins
from stillhouse.models.detectors.losses import giou_term, masked_sum
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import AnchorGrid
from stillhouse.models.detectors.tower import DenseHead
from stillhouse.types import Term, Terms

MARGIN = 0.1  # of a target from the last bin


@dataclass(frozen=True)
class GFocal:
    """Quality focal loss, and a distribution over `last` + 1 distances for each side."""

    suppression: Suppression = field(default=Suppression(iou=0.6))
    scale: float = 8.0  # side of the anchor in strides
    candidates: int = 9  # nearest anchors of each level
    last: int = 16  # the largest distance, in strides
    beta: float = 2.0
    neck: ClassVar[dict[str, object]] = {"extra_from": "p5"}

    @property
    def grid(self) -> AnchorGrid:
        """The anchor of a cell."""
        return AnchorGrid((self.scale,))

    def head(self, before: int, classes: int, levels: int, **options: Any) -> nn.Module:
        """Towers with group norm, without a quality of their own."""
        return DenseHead(before, classes, levels, box=4 * (self.last + 1), **options)

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """By a threshold of IoU for each object."""
        index = assign_adaptively(objects, out.priors, self.candidates)
        return make_assignment(index, objects, out.priors.boxes)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class` over the sum of max(positives, 1); `box`, `edge` weighted by the best score.

        The target of a class is the IoU of the predicted box, without a gradient.
        """
        boxes = out.decoded
        with torch.no_grad():
            best = out.scores.amax(-1).to(boxes.dtype).sigmoid() * assigned.positive
            quality = iou(boxes, assigned.boxes)
        total = quality_focal(out.scores, assigned.labels, quality, assigned.counted, self.beta)
        return {
            "class": Term(total, assigned.mass.to(boxes.dtype)),
            "box": giou_term(boxes, assigned, best, 2.0),
            "edge": self.edge_term(out, assigned, best),
        }

    def edge_term(self, out: Dense, assigned: Assignment, weight: Tensor) -> Term:
        """Distribution focal loss of the four sides, in strides, over four times the weights."""
        stride = out.priors.stride[:, None]
        target = encode_distances(assigned.boxes, out.priors.centres) / stride
        bins = out.boxes.unflatten(-1, (4, self.last + 1))
        losses = distribution_focal(bins, target.clamp(0, self.last - MARGIN)).sum(-1)
        return Term(masked_sum(losses, weight) / 4, weight.sum(), 0.25, least=1.0)

    def decode(self, out: Dense) -> Tensor:
        """The mean distances in strides: -> (N, P, 4)."""
        distances = expected_bins(out.boxes, self.last) * out.priors.stride[:, None]
        return decode_distances(distances, out.priors.centres)

    def probabilities(self, out: Dense) -> Tensor:
        """-> (N, P, C)."""
        return out.scores.sigmoid()

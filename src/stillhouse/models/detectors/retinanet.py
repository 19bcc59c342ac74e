"""RetinaNet (Lin et al., 2017): nine anchors per cell, focal loss, box deltas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.models.detectors.assign import Assignment, assign_by_iou, make_assignment
from stillhouse.models.detectors.coding import decode_deltas, encode_deltas
from stillhouse.models.detectors.losses import class_total, masked_sum
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.models.detectors.priors import AnchorGrid
from stillhouse.models.detectors.tower import DenseHead
from stillhouse.types import Term, Terms


@dataclass(frozen=True)
class RetinaNet:
    """Anchors of three scales and three ratios; positive from IoU 0.5, background below 0.4."""

    suppression: Suppression = field(default=Suppression(iou=0.5))
    scale: float = 4.0  # of the smallest anchor, in strides
    positive: float = 0.5
    negative: float = 0.4
    neck: ClassVar[dict[str, object]] = {"extra_from": "c5"}

    @property
    def grid(self) -> AnchorGrid:
        """The anchors of a cell."""
        scales = tuple(self.scale * 2 ** (third / 3) for third in range(3))
        return AnchorGrid(scales, (0.5, 1.0, 2.0))

    def head(self, before: int, classes: int, levels: int, **options: Any) -> nn.Module:
        """Towers without norms."""
        return DenseHead(
            before, classes, levels, each=self.grid.each, norm=False, scales=False, **options
        )

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """By IoU with the anchors."""
        index = assign_by_iou(objects, out.priors.boxes, self.positive, self.negative)
        return make_assignment(index, objects, out.priors.boxes)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class`: focal; `box`: L1 of deltas; both over the sum of max(positives, 1) of images."""
        targets = encode_deltas(assigned.boxes, out.priors.boxes)
        far = (out.boxes.to(targets.dtype) - targets).abs().sum(-1)
        mass = assigned.mass.to(targets.dtype)
        return {
            "class": Term(class_total(out, assigned), mass),
            "box": Term(masked_sum(far, assigned.positive), mass),
        }

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        return decode_deltas(out.boxes, out.priors.boxes)

    def probabilities(self, out: Dense) -> Tensor:
        """-> (N, P, C)."""
        return out.scores.sigmoid()

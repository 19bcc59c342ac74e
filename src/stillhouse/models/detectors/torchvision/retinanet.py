"""What the raw predictions of torchvision's RetinaNet mean, and its losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.boxes import centre, diou, giou, pairwise_iou
from stillhouse.functional.dtype import upcast
from stillhouse.functional.focal import focal
from stillhouse.models.detectors.assign import (
    BACKGROUND,
    IGNORED,
    Assignment,
    best_objects,
    make_assignment,
)
from stillhouse.models.detectors.coding import UNIT, Deviations, encode_deltas
from stillhouse.models.detectors.losses import masked_sum
from stillhouse.models.detectors.output import Dense, Suppression
from stillhouse.types import Term, Terms

OVERLAPS = {"giou": giou, "diou": diou}
BOX_LOSSES = ("l1", "smooth_l1", *OVERLAPS)


@dataclass(frozen=True)
class TorchvisionRetinaNet:
    """Anchors matched by IoU; each loss is averaged over the positives of an image, then images.

    With `low_quality`, the best anchors of every object are positive too, each for the object that
    it overlaps most. `deviations` are the inverse weights of the box coder, and `limit` is its
    largest logarithm of box to anchor side; there is no smallest one.
    """

    suppression: Suppression
    positive: float = 0.5
    negative: float = 0.4
    low_quality: bool = True
    box_loss: str = "l1"
    deviations: Deviations = UNIT
    limit: float = math.log(1000 / 16)

    @classmethod
    def of(cls, model: Any, suppression: Suppression) -> TorchvisionRetinaNet:
        """The family with the options of a torchvision model."""
        matcher, coder = model.proposal_matcher, model.box_coder
        loss = getattr(getattr(model.head, "regression_head", None), "_loss_type", "l1")
        if loss not in BOX_LOSSES:
            raise UserError(
                f"{type(model).__name__} has the box loss {loss!r}, which is not supported; set "
                f"head.regression_head._loss_type to one of {', '.join(BOX_LOSSES)}"
            )
        x, y, width, height = (1 / weight for weight in coder.weights)
        return cls(
            suppression,
            matcher.high_threshold,
            matcher.low_threshold,
            matcher.allow_low_quality_matches,
            loss,
            (x, y, width, height),
            coder.bbox_xform_clip,
        )

    def assign(self, out: Dense, objects: Objects) -> Assignment:
        """By IoU with the anchors; those between the two thresholds are ignored."""
        anchors = out.priors.boxes
        index = match_anchors(objects, anchors, self.positive, self.negative, self.low_quality)
        return make_assignment(index, objects, anchors)

    def terms(self, out: Dense, assigned: Assignment) -> Terms:
        """`class` and `box`: sums over max(positives, 1) of each image, over the images."""
        share = 1 / assigned.positives.clamp(min=1).to(out.priors.boxes.dtype)[:, None]
        class_total = focal(out.scores, assigned.labels, assigned.counted * share)
        box_total = masked_sum(self._box_losses(out, assigned), assigned.positive * share)
        images = class_total.new_full((), len(share))
        return {"class": Term(class_total, images), "box": Term(box_total, images)}

    def _box_losses(self, out: Dense, assigned: Assignment) -> Tensor:
        """The box loss of each prior, summed over the sides: -> (N, P)."""
        if self.box_loss in OVERLAPS:
            return 1 - OVERLAPS[self.box_loss](self.decode(out), assigned.boxes)
        target = encode_deltas(assigned.boxes, out.priors.boxes, self.deviations)
        loss = F.l1_loss if self.box_loss == "l1" else F.smooth_l1_loss
        return loss(out.boxes.to(target.dtype), target, reduction="none").sum(-1)

    def decode(self, out: Dense) -> Tensor:
        """-> (N, P, 4)."""
        anchors = out.priors.boxes
        sides = anchors[:, 2:] - anchors[:, :2]
        shift, scale = (upcast(out.boxes) * anchors.new_tensor(self.deviations)).split(2, -1)
        middle = centre(anchors) + shift * sides
        half = sides * scale.clamp(max=self.limit).exp() / 2
        return torch.cat([middle - half, middle + half], -1)

    def probabilities(self, out: Dense) -> Tensor:
        """-> (N, P, C)."""
        return out.scores.sigmoid()


def match_anchors(
    objects: Objects, anchors: Tensor, positive: float, negative: float, low_quality: bool
) -> Tensor:
    """The object of each anchor as torchvision matches them: (P, 4) -> (N, P)."""
    overlap = pairwise_iou(objects.boxes.to(anchors.dtype), anchors)
    overlap = overlap.masked_fill(objects.ignored[:, None], -math.inf)
    best, nearest = best_objects(overlap, objects)
    index = nearest.where(best >= negative, BACKGROUND)
    index = index.masked_fill((best >= negative) & (best < positive), IGNORED)
    return nearest.where(_is_best(overlap, objects), index) if low_quality else index


def _is_best(overlap: Tensor, objects: Objects) -> Tensor:
    """The anchors that an object of their image overlaps most: (M, P) -> (N, P)."""
    # As in torchvision, an object that overlaps no anchor has its highest IoU, 0, with many.
    best = (overlap == overlap.amax(1, keepdim=True)) & (overlap > -math.inf)
    image = objects.image[:, None].expand_as(overlap)
    found = best.new_zeros(objects.images, overlap.shape[1], dtype=torch.uint8)
    return found.scatter_reduce(0, image, best.to(torch.uint8), "amax") > 0

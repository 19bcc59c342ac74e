"""Losses that several families share, as Terms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.boxes import giou, iou
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.focal import focal
from stillhouse.models.detectors.assign import Assignment
from stillhouse.models.detectors.coding import centreness, encode_distances
from stillhouse.models.detectors.output import Dense
from stillhouse.types import Term

SMALLEST = 1e-6  # the IoU of boxes that do not overlap, in a logarithm


def class_total(
    out: Dense, assigned: Assignment, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """The focal loss of all classes, summed over priors that are not ignored: -> ()."""
    return focal(out.scores, assigned.labels, assigned.counted, alpha, gamma)


def masked_sum(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted sum; a row of weight 0 adds nothing, whatever its value: (N, P) twice -> ()."""
    return (values.where(weight > 0, 0) * weight.to(values.dtype)).sum()


def smooth_l1(difference: Tensor, beta: float = 0.0) -> Tensor:
    """The absolute value, quadratic below `beta`: (...) -> (...)."""
    far = difference.abs()
    return far if not beta else (far.square() / (2 * beta)).where(far < beta, far - beta / 2)


def giou_term(boxes: Tensor, assigned: Assignment, weight: Tensor, factor: float) -> Term:
    """1 - GIoU of decoded boxes (N, P, 4) with those of their objects, weighted by (N, P)."""
    losses = 1 - giou(boxes, assigned.boxes)
    return Term(masked_sum(losses, weight), weight.sum(), factor, least=1.0)


def log_iou_term(boxes: Tensor, assigned: Assignment, weight: Tensor) -> Term:
    """-log IoU of decoded boxes (N, P, 4) with those of their objects, weighted by (N, P)."""
    losses = -iou(boxes, assigned.boxes).clamp(min=SMALLEST).log()
    return Term(masked_sum(losses, weight), weight.sum())


def centre_weight(out: Dense, assigned: Assignment) -> Tensor:
    """The centre-ness of positive priors in their objects, 0 for others: -> (N, P)."""
    distances = encode_distances(assigned.boxes, out.priors.centres)
    return centreness(distances) * assigned.positive


def quality_total(out: Dense, assigned: Assignment, target: Tensor) -> Tensor:
    """Binary cross-entropy of the quality of positive priors, summed: target (N, P) -> ()."""
    assert out.quality is not None
    with full_precision(out.quality):
        z = upcast(out.quality)
        losses = F.binary_cross_entropy_with_logits(z, target.to(z.dtype), reduction="none")
        return masked_sum(losses, assigned.positive.to(z.dtype))

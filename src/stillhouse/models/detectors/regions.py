"""Regions of priors around objects, in which distillation compares boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import box_area, centre, intersection, pairwise_iou
from stillhouse.models.detectors.assign import adaptive_threshold, nearest_per_level
from stillhouse.models.detectors.priors import Priors

Closeness = Literal["diou", "released"]
GAMMA = 0.25  # of the threshold: the least closeness of the region


def valuable_region(
    objects: Objects, priors: Priors, closeness: Closeness = "diou", candidates: int = 9
) -> Tensor:
    """The weight of each prior in the valuable region of LD (Zheng et al., 2022): -> (N, P).

    A prior is in the region of an object if its closeness to the object is at least a quarter of
    the threshold that ATSS gives the object, and below it. The weight is the highest IoU with such
    an object, 0 outside. The closeness is DIoU, or as in the released code, the share of the
    anchor that the object covers minus the term of the distance.
    """
    weight = priors.boxes.new_zeros(objects.images, len(priors))
    if not len(objects.labels):
        return weight
    boxes = objects.boxes.to(priors.boxes.dtype)
    overlap = pairwise_iou(boxes, priors.boxes)
    distance = (priors.centres - centre(boxes)[:, None]).square().sum(-1)
    chosen = nearest_per_level(distance, priors, candidates)
    threshold = adaptive_threshold(overlap.gather(1, chosen))
    near = _closeness(boxes, priors.boxes, overlap, distance, closeness)
    inside = (near >= GAMMA * threshold) & (near < threshold) & ~objects.ignored[:, None]
    image = objects.image[:, None].expand_as(overlap)
    return weight.scatter_reduce(0, image, overlap.where(inside, 0), "amax")


def _closeness(
    boxes: Tensor, priors: Tensor, overlap: Tensor, distance: Tensor, kind: Closeness
) -> Tensor:
    """(M, 4), (P, 4), (M, P), (M, P) -> (M, P)."""
    low = torch.minimum(boxes[:, None, :2], priors[:, :2])
    high = torch.maximum(boxes[:, None, 2:], priors[:, 2:])
    away = distance / (high - low).square().sum(-1).clamp(min=1e-12)
    if kind == "diou":
        return overlap - away
    return intersection(boxes[:, None], priors) / box_area(priors).clamp(min=1e-12) - away

"""Areas and overlaps of boxes x1, y1, x2, y2, where x2 and y2 are the far edges: no `+ 1`.

Half precision is computed in float32. An inverted box, x2 < x1 or y2 < y1, has area 0. A ratio
whose denominator is at most `EPS` is exactly 0, and so is its gradient, so that empty boxes give
neither NaN nor infinity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillhouse.functional.dtype import upcast

EPS = 1e-7  # squared units of the boxes


def box_area(boxes: Tensor) -> Tensor:
    """Area in squared units of the boxes: (..., 4) -> (...)."""
    x1, y1, x2, y2 = upcast(boxes).unbind(-1)
    return _area(x1, y1, x2, y2)


def centre(boxes: Tensor) -> Tensor:
    """Centres x, y: (..., 4) -> (..., 2)."""
    boxes = upcast(boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def clip_boxes(boxes: Tensor, height: float | Tensor, width: float | Tensor) -> Tensor:
    """Boxes moved inside an image: (..., 4), numbers or (...) -> (..., 4) of the same dtype.

    A box that is wholly outside has area 0 afterwards.
    """
    limits = (width, height, width, height)
    parts = zip(boxes.unbind(-1), limits, strict=True)
    return torch.stack([side.clamp(min=0).clamp(max=limit) for side, limit in parts], -1)


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union, element by element with broadcasting: (..., 4), (..., 4) -> (...).

    `one[:, None]` (M, 1, 4) and `other` (M, P, 4) give (M, P). 0 for two empty boxes.
    """
    shared = intersection(one, other)
    return _ratio(shared, box_area(one) + box_area(other) - shared)


def giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019), in [-1, 1]: (..., 4), (..., 4) -> (...).

    IoU minus the share of the enclosing box that belongs to neither, element by element with
    broadcasting.
    """
    shared = intersection(one, other)
    union = box_area(one) + box_area(other) - shared
    hull = _area(*_enclosing(one, other))
    return _ratio(shared, union) - _ratio(hull - union, hull)


def diou(one: Tensor, other: Tensor) -> Tensor:
    """Distance IoU (Zheng et al., 2020), in (-1, 1]: (..., 4), (..., 4) -> (...).

    IoU minus the squared distance of the centres over the squared diagonal of the enclosing box,
    element by element with broadcasting.
    """
    x1, y1, x2, y2 = _enclosing(one, other)
    distance = (centre(one) - centre(other)).square().sum(-1)
    return iou(one, other) - _ratio(distance, (x2 - x1).square() + (y2 - y1).square())


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """IoU of each box with each other one: (..., M, 4), (..., P, 4) -> (..., M, P)."""
    return iou(one[..., :, None, :], other[..., None, :, :])


def pairwise_overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over the area of the first: (..., M, 4), (..., P, 4) -> (..., M, P).

    The overlap of detections `one` with crowds `other`, which they need not cover.
    """
    one = one[..., :, None, :]
    return _ratio(intersection(one, other[..., None, :, :]), box_area(one))


def intersection(one: Tensor, other: Tensor) -> Tensor:
    """Area of the intersection, element by element with broadcasting: (..., 4) twice -> (...)."""
    a, b = upcast(one).unbind(-1), upcast(other).unbind(-1)
    nearest = (torch.maximum(a[side], b[side]) for side in (0, 1))
    farthest = (torch.minimum(a[side], b[side]) for side in (2, 3))
    return _area(*nearest, *farthest)


def _enclosing(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sides of the smallest box around both."""
    a, b = upcast(one).unbind(-1), upcast(other).unbind(-1)
    x1, y1 = (torch.minimum(a[side], b[side]) for side in (0, 1))
    x2, y2 = (torch.maximum(a[side], b[side]) for side in (2, 3))
    return x1, y1, x2, y2


def _area(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Quotient, 0 and without a gradient where `whole` is at most `EPS`: (...), (...) -> (...)."""
    return part / whole.where(whole > EPS, math.inf)

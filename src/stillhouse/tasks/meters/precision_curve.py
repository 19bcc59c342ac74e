"""Precision over recall of ranked detections, and the average precisions that are read off it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Curve(NamedTuple):
    """Points of a precision-recall curve, in [0, 1], with growing recall."""

    recall: Tensor  # (R,) double
    precision: Tensor  # (R,) double


def precision_curve(hits: Tensor, objects: int) -> Curve:
    """The interpolated curve: (D,) bool, highest score first -> D points.

    Its precision is the highest at this recall or any higher one. `objects` is the number of
    objects to find, at least 1.
    """
    found = hits.cumsum(0, dtype=torch.double)
    precision = found / torch.arange(1, len(hits) + 1, dtype=torch.double)
    return Curve(found / objects, precision.flip(0).cummax(0).values.flip(0))


def area_under(curve: Curve) -> Tensor:
    """The area under a curve of steps, of which each has the precision of its end: -> ()."""
    return (curve.recall.diff(prepend=curve.recall.new_zeros(1)) * curve.precision).sum()


def sample_curve(curve: Curve, recall: Tensor) -> Curve:
    """The curve at some recalls: (R,) -> R points; the precision of one not reached is 0."""
    place = torch.searchsorted(curve.recall, recall)
    padded = torch.cat([curve.precision, curve.precision.new_zeros(1)])
    return Curve(recall, padded[place])

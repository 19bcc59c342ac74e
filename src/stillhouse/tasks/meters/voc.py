"""Average precision of boxes by the protocols of Pascal VOC."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.tasks.meters.detection_rows import DetectionRows, ObjectRows, Rows, number_in_group
from stillhouse.tasks.meters.pairs import best_pairs, pair_rows, rank_detections
from stillhouse.tasks.meters.precision_curve import (
    Curve,
    area_under,
    precision_curve,
    sample_curve,
)

LEAST_IOU = 0.5
ELEVEN = torch.arange(11, dtype=torch.double) / 10  # the recalls of VOC 2007


@dataclass(frozen=True, eq=False)
class VocPrecision:
    """The result of Pascal VOC, in [0, 1], with NaN for classes without an object to find."""

    per_class: Tensor  # (C,) double
    curves: Mapping[int, Curve]  # of the classes with objects

    def curve(self, label: int) -> Curve:
        """The interpolated curve of one class, a point for each of its detections."""
        return self.curves[label]

    def scores(self) -> Mapping[str, float]:
        """`ap`, the mean over classes with objects in percent; 0 if there are none."""
        return {"ap": float(100 * self.per_class.nanmean().nan_to_num())}


def voc_precision(rows: Rows, classes: int, recalls: Tensor | None = None) -> VocPrecision:
    """The result for rows that are in order: the mean precision at `recalls`, or the area.

    A detection belongs to the object of its class with the largest IoU, at least .5; the best one
    of an object is right, the others are wrong. Those of ignored objects do not count. Sides of
    boxes are x2 - x1, without the `+ 1` of the development kit.
    """
    detections = rank_detections(rows.detections)
    hits, counted = _judge(detections, rows.objects)
    found, labels = hits[counted], detections.label[counted]
    positives = rows.objects.label[~rows.objects.ignored].bincount(minlength=classes).tolist()
    curves = {
        label: precision_curve(found[labels == label], count)
        for label, count in enumerate(positives)
        if count
    }
    per_class = torch.full((classes,), math.nan, dtype=torch.double)
    for label, curve in curves.items():
        per_class[label] = _average(curve, recalls)
    return VocPrecision(per_class, curves)


def _judge(detections: DetectionRows, objects: ObjectRows) -> tuple[Tensor, Tensor]:
    """Which ranked detections are right, and which of them count at all: -> (D,), (D,) bool."""
    pairs = pair_rows(detections, objects, LEAST_IOU)
    same = detections.label[pairs.detection] == objects.label[pairs.object]
    best = best_pairs(pairs.select(same))
    hits = torch.zeros(len(detections.label), dtype=torch.bool)
    hits[best.detection[number_in_group(best.object) == 0]] = True
    counted = torch.ones_like(hits)
    counted[best.detection[objects.ignored[best.object]]] = False
    return hits, counted


def _average(curve: Curve, recalls: Tensor | None) -> Tensor:
    return area_under(curve) if recalls is None else sample_curve(curve, recalls).precision.mean()

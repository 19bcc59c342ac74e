"""Pairs of detections and objects of one image, by their overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.functional.boxes import EPS, box_area, intersection, iou
from stillhouse.tasks.meters.detection_rows import DetectionRows, ObjectRows, number_in_group


class Pairs(NamedTuple):
    """P pairs, in the order of their detections and, of one detection, of the objects."""

    detection: Tensor  # (P,) row of the detection
    object: Tensor  # (P,) row of the object
    overlap: Tensor  # (P,) double: IoU; with a crowd the part of the detection that lies in it

    def select(self, index: Tensor) -> Pairs:
        """Some of the pairs: (P,) bool, or (K,) int64."""
        return Pairs(*(column[index] for column in self))


def rank_detections(detections: DetectionRows) -> DetectionRows:
    """All rows, highest score first; equal scores stay in order."""
    order = detections.score.argsort(descending=True, stable=True)
    return DetectionRows(*(column[order] for column in detections))


def pair_rows(detections: DetectionRows, objects: ObjectRows, least: float) -> Pairs:
    """The pairs of one image, whatever their classes, with an overlap of at least `least`.

    Objects are in order of their keys.
    """
    first = torch.searchsorted(objects.key, detections.key)
    count = torch.searchsorted(objects.key, detections.key, right=True) - first
    detection = torch.arange(len(count)).repeat_interleave(count)
    number = torch.arange(len(detection)) - (count.cumsum(0) - count)[detection]
    pairs = Pairs(detection, first[detection] + number, torch.zeros(0))
    overlap = _overlap(detections.box[detection], objects, pairs.object)
    return pairs._replace(overlap=overlap).select(overlap >= least)


def _overlap(boxes: Tensor, objects: ObjectRows, rows: Tensor) -> Tensor:
    overlap = iou(boxes, objects.box[rows])
    crowd = objects.crowd[rows] > 0
    some, crowds = boxes[crowd], objects.box[rows[crowd]]
    overlap[crowd] = intersection(some, crowds) / box_area(some).clamp(min=EPS)
    return overlap


def best_pairs(pairs: Pairs) -> Pairs:
    """The pair of largest overlap of each detection that has one; the first of equal ones."""
    order = pairs.overlap.argsort(descending=True, stable=True)
    best = order[number_in_group(pairs.detection[order]) == 0]
    return pairs.select(best.sort().values)


def match_greedily(pairs: Pairs, ignored: Tensor, crowd: Tensor, detections: int) -> Tensor:
    """The object of each detection, -1 for none, as COCO matches them: -> (D,).

    `pairs` are those of one class that overlap enough, with ranked detections; `ignored` and
    `crowd` are (M,) bool. A detection takes the object of largest overlap that none took before,
    an ignored one only if there is no other. A crowd may be taken several times.
    """
    columns = (-pairs.object, -pairs.overlap, ignored[pairs.object], pairs.detection)
    ordered = pairs.select(torch.from_numpy(np.lexsort([column.numpy() for column in columns])))
    taken, shared = [False] * len(ignored), crowd.tolist()
    matches = [-1] * detections
    for detection, row in zip(ordered.detection.tolist(), ordered.object.tolist(), strict=True):
        if matches[detection] < 0 and (shared[row] or not taken[row]):
            matches[detection], taken[row] = row, True
    return torch.tensor(matches, dtype=torch.long)

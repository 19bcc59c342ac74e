"""Which instances are correct: matched with objects by their masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stillhouse.explain.verdicts import IOU, Verdicts, judge_pairs
from stillhouse.tasks.meters.detection_rows import DetectionRows
from stillhouse.tasks.meters.mask_rows import OrderedMasks
from stillhouse.tasks.meters.pairs import Pairs


def judge_masks(masks: OrderedMasks) -> Verdicts:
    """The verdicts on rows that are in order, matched at a mask IoU of .5 as by COCO."""
    rows = masks.boxes
    order = rows.detections.score.argsort(descending=True, stable=True)
    detections = DetectionRows(*(column[order] for column in rows.detections))
    codes = [masks.detections[place] for place in order.tolist()]
    pairs = [
        pair_masks(masks, key, size, detections, codes)
        for key, size in zip(rows.images.tolist(), masks.size.tolist(), strict=True)
    ]
    every = Pairs(*(torch.cat(columns) for columns in zip(_none(), *pairs, strict=True)))
    return judge_pairs(detections, rows.objects, every.select(every.detection.argsort(stable=True)))


def pair_masks(
    masks: OrderedMasks, key: int, size: list[int], detections: DetectionRows, codes: list[bytes]
) -> Pairs:
    """The pairs of one image with an overlap of at least .5."""
    from faster_coco_eval.core import mask as library

    found = (detections.key == key).nonzero()[:, 0]
    objects = (masks.boxes.objects.key == key).nonzero()[:, 0]
    if not len(found) or not len(objects):
        return _none()
    own = [{"size": size, "counts": codes[place]} for place in found.tolist()]
    others = [{"size": size, "counts": masks.objects[place]} for place in objects.tolist()]
    crowd = masks.boxes.objects.crowd[objects].tolist()
    overlap = torch.from_numpy(np.asarray(library.iou(own, others, crowd), float))
    row, column = (overlap >= IOU).nonzero(as_tuple=True)
    return Pairs(found[row], objects[column], overlap[row, column])


def _none() -> Pairs:
    index: Tensor = torch.zeros(0, dtype=torch.int64)
    return Pairs(index, index, torch.zeros(0, dtype=torch.double))

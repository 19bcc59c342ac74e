"""The instances at which two detectors differ most, and their features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.boxes import box_area, clip_boxes
from stillhouse.functional.foreground import level_of_scale
from stillhouse.methods.levels import LevelPair
from stillhouse.methods.predictions import PairedPredictions
from stillhouse.models.detectors.suppress import suppress

FINEST = 14.0  # strides: root of the area of a box at the lower end of a level
SAMPLES = 2  # per bin and direction


def select_instances(
    pairs: PairedPredictions,
    sizes: Tensor,
    iou: float = 0.3,
    most: int = 10,
    candidates: int = 3000,
) -> Objects:
    """The boxes of the largest differences of class probabilities, all of class 0.

    The score of a place is max_c |p_t - p_s|, its box that of the network with the higher
    probability, clipped to the image (`sizes` (N, 2), height and width). Of overlapping boxes the
    best remains, and of each image the best `most`. Places in the padding, boxes without an area
    and places without a difference do not count.
    """
    s, t = pairs.student.detach(), pairs.teacher
    limits = sizes.to(s)[pairs.image]
    surer = (t.amax(-1) > s.amax(-1))[:, None]
    boxes = pairs.teacher_boxes.where(surer, pairs.student_boxes.detach())
    boxes = clip_boxes(boxes, *limits.unbind(-1))
    inside = (pairs.centres <= limits.flip(1)).all(-1)
    score = (t - s).abs().amax(-1).where(inside & (box_area(boxes) > 0), 0)
    found, image = [boxes.new_zeros(0, 4)], [pairs.image.new_zeros(0)]  # for no images at all
    counts = pairs.image.bincount(minlength=pairs.images).tolist()
    parts = zip(score.split(counts), boxes.split(counts), strict=True)
    for number, (values, known) in enumerate(parts):
        best = values.topk(min(candidates, len(values)))
        places = best.indices[best.values > 0]
        known, values = known[places], values[places]
        kept = known[suppress(known, values, torch.zeros_like(places), iou)[:most]]
        found.append(kept)
        image.append(places.new_full((len(kept),), number))
    together = torch.cat(image)
    return Objects(torch.cat(found), torch.zeros_like(together), together, images=pairs.images)


def align_features(levels: Sequence[LevelPair], instances: Objects, side: int) -> list[Tensor]:
    """The features of instances on a grid of `side` x `side`, of student and teacher.

    L levels -> 2 x (K, C, side, side). Each instance is read from one level, by its size
    (RoIAlign, He et al., 2017).
    """
    from torchvision.ops import roi_align

    boxes = instances.boxes.to(levels[0].student.dtype)
    rois = torch.cat([instances.image[:, None].to(boxes.dtype), boxes], 1)
    place = level_of_scale(boxes, FINEST * levels[0].stride, len(levels))
    order = torch.cat([(place == index).nonzero()[:, 0] for index in range(len(levels))]).argsort()
    found = []
    for maps in zip(*((level.student, level.teacher) for level in levels), strict=True):
        parts = [
            roi_align(each, rois[place == index], side, 1 / level.stride, SAMPLES, aligned=True)
            for index, (each, level) in enumerate(zip(maps, levels, strict=True))
        ]
        found.append(torch.cat(parts)[order])
    return found

"""The sites of two-stage detectors: the teacher's proposals, scored by both networks."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.models.detectors.rcnn import match_regions
from stillhouse.models.detectors.sampling import rank_within
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.types import Site, Sites

REGIONS = "roi"  # the teacher's best proposals of each image
MOST = 512  # of an image
OVERLAP = 0.5  # with an object, from which a proposal has its class


def region_sites(student: TwoStage, teacher: TwoStage, objects: Objects | None) -> Sites:
    """The site `roi`: rows are proposals of the teacher, with logits of classes and background.

    Both networks are compared at their first stage. The target is the class of the object, or the
    number of classes for background; None without labels. Losses are means over rows.
    """

    def make() -> Site:
        first = teacher.predicted[0]
        first = first.rows(best_of_each_image(first.image))
        scored = student.score(first.boxes, first.image)
        target = None
        if objects is not None:
            target = classes_of(first.boxes, first.image, objects, student.classes)
        return Site(scored.scores, first.scores, target)

    return Sites({REGIONS: make})


def best_of_each_image(image: Tensor, most: int = MOST) -> Tensor:
    """Which proposals are among the first of their image, where they are sorted: (R,) -> (R,)."""
    order = torch.arange(len(image), device=image.device, dtype=torch.float64) / max(1, len(image))
    return rank_within(image, order, torch.ones_like(image, dtype=torch.bool)) < most


def classes_of(boxes: Tensor, image: Tensor, objects: Objects, classes: int) -> Tensor:
    """The class of each region, `classes` for background: (R, 4), (R,) -> (R,)."""
    index = match_regions(boxes, image, objects, OVERLAP)
    if not len(objects.labels):
        return torch.full_like(index, classes)
    return objects.labels[index.clamp(min=0)].where(index >= 0, classes)

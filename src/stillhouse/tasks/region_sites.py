"""The sites of two-stage detectors: the teacher's proposals, scored by both networks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.models.detectors.rcnn import match_regions
from stillhouse.models.detectors.shared_proposals import score_proposals
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.types import Site, Sites

SITES = (
    "roi",  # the teacher's best proposals of each image
    "roi_main",  # those with an object
    "roi_rest",  # those of background
)
LABELLED_SITES = ("roi_main", "roi_rest")  # whose rows are known from labels
OVERLAP = 0.5  # with an object, from which a proposal has its class


def region_sites(student: TwoStage, teacher: TwoStage, objects: Objects | None) -> Sites:
    """The sites of two two-stage detectors: rows are proposals of the teacher.

    Their logits are those of classes and, last, of the background. Both networks are compared at
    their first stage. The target is the class of the object, or the number of classes for
    background; None without labels, where all rows are background. Losses are means over rows.
    """

    @cache
    def every() -> Site:
        own, others = score_proposals(student, teacher)
        target = None
        if objects is not None:
            target = region_classes(others.boxes, others.image, objects, student.classes)
        return Site(own.scores, others.scores, target)

    def part(positive: bool) -> Site:
        site = every()
        hits = torch.zeros_like(site.student[:, 0], dtype=torch.bool)
        if site.target is not None:
            hits = site.target < student.classes
        return replace(site, weight=(hits == positive).to(site.student.dtype))

    return Sites(dict(zip(SITES, (every, partial(part, True), partial(part, False)), strict=True)))


def region_classes(boxes: Tensor, image: Tensor, objects: Objects, classes: int) -> Tensor:
    """The class of each region, `classes` for background: (R, 4), (R,) -> (R,)."""
    index = match_regions(boxes, image, objects, OVERLAP)
    if not len(objects.labels):
        return torch.full_like(index, classes)
    return objects.labels[index.clamp(min=0)].where(index >= 0, classes)

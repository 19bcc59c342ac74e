"""Small two-stage detectors with masks, and objects that have some, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detectors import SIZE, small_two_stage, some_objects
from stillhouse.batches import Objects
from stillhouse.models.detectors.output import Suppression

FAMILIES = ("mask_rcnn", "cascade_mask_rcnn")
BOTH = pytest.mark.parametrize("family", FAMILIES)
COUNTS = (2, 0, 3)
SIDE = 10  # of the masks: twice that of the pooled regions
OPTIONS = Suppression(threshold=0.2, iou=0.4, most=6)


def small(family: str, **options: Any) -> Any:
    return small_two_stage(family, mask_head={"width": 8, "depth": 1, "side": 5}, **options)


def far(family: str, **options: Any) -> Any:
    """A detector that is far from equal scores, unmoved boxes and masks of 0.5."""
    torch.manual_seed(0)
    detector = small(family, **options).double()
    for head, masks in zip(detector.heads, detector.mask_heads, strict=True):
        torch.nn.init.normal_(head.scores.weight, std=1.0)
        torch.nn.init.normal_(head.boxes.weight, std=0.2)
        torch.nn.init.normal_(masks.maps.weight, std=2.0)
    torch.nn.init.normal_(detector.rpn.scores.weight, std=0.3)
    return detector.eval()


def masked(objects: Objects) -> Objects:
    """The objects with the ellipses in their boxes as masks."""
    y, x = (torch.arange(side)[:, None] + 0.5 for side in SIZE)
    masks = []
    for x1, y1, x2, y2 in objects.boxes.tolist():
        away_x = ((2 * x[:, 0] - x1 - x2) / (x2 - x1)).square()
        away_y = ((2 * y - y1 - y2) / (y2 - y1)).square()
        masks.append(away_y + away_x <= 1)
    empty = torch.zeros(0, *SIZE, dtype=torch.bool)
    return replace(objects, masks=torch.stack(masks) if masks else empty)


def masked_objects(*counts: int, seed: int = 0) -> Objects:
    return masked(some_objects(*counts, seed=seed))

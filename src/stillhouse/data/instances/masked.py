"""Masks of one image as objects."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.functional.mask_boxes import boxes_around


def masked_objects(
    masks: Tensor, labels: Tensor, crowd: Tensor, area: Tensor | None = None
) -> Objects:
    """The objects of one image with tight boxes, without those whose mask is empty.

    (K, H, W) bool, (K,) int64, (K,) bool, (K,) float; the area is that of the mask by default.
    """
    size = masks.flatten(1).sum(1)
    objects = Objects(
        boxes_around(masks),
        labels,
        torch.zeros_like(labels),
        crowd=crowd,
        masks=masks,
        area=size.float() if area is None else area,
    )
    return objects if bool((size > 0).all()) else objects.objects(size > 0)

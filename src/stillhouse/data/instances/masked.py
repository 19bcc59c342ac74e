"""Masks as objects: their boxes, and what an empty mask means."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.batches import Objects


def enclosing_boxes(masks: Tensor) -> Tensor:
    """The tight box of each mask: (K, H, W) bool -> (K, 4) float; 0, 0, 0, 0 for an empty mask."""
    (left, right), (top, bottom) = (_extent(masks.any(axis)) for axis in (1, 2))
    return torch.stack([left, top, right, bottom], 1).float()


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """The first true index and the last one + 1: (K, S) -> (K,), (K,); 0, 0 without any."""
    places = torch.arange(line.shape[1])
    last = (places + 1).where(line, 0).amax(1)
    return places.where(line, line.shape[1]).amin(1).minimum(last), last


def masked_objects(
    masks: Tensor, labels: Tensor, crowd: Tensor, area: Tensor | None = None
) -> Objects:
    """The objects of one image with tight boxes, without those whose mask is empty.

    (K, H, W) bool, (K,) int64, (K,) bool, (K,) float; the area is that of the mask by default.
    """
    size = masks.flatten(1).sum(1)
    objects = Objects(
        enclosing_boxes(masks),
        labels,
        torch.zeros_like(labels),
        crowd=crowd,
        masks=masks,
        area=size.float() if area is None else area,
    )
    return objects if bool((size > 0).all()) else objects.objects(size > 0)

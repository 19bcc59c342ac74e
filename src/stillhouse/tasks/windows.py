"""Predictions of large images from overlapping windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from stillhouse.functional.resize import resize_maps
from stillhouse.models.segmenters.output import Segmentation, read_segmentation


def predict_windows(
    network: Callable[[Tensor], Any], images: Tensor, side: int, stride: int
) -> Segmentation:
    """The mean logits of square windows at each pixel: (N, C, H, W) -> logits (N, classes, H, W).

    Windows are `stride` apart, the last ones of a row and of a column lie at the edge of the image.
    A side of an image that is shorter than a window has one window of that length.
    """
    height, width = images.shape[-2:]
    total: Tensor | None = None
    count = images.new_zeros(height, width)
    for top in starts(height, side, stride):
        for left in starts(width, side, stride):
            part = (slice(top, top + side), slice(left, left + side))
            window = images[(..., *part)]
            logits = read_segmentation(network(window)).logits
            resized = resize_maps(logits, (window.shape[-2], window.shape[-1]))
            if total is None:
                total = resized.new_zeros(len(images), resized.shape[1], height, width)
            total[(..., *part)] += resized
            count[part] += 1
    assert total is not None
    return Segmentation(total / count)


def starts(length: int, side: int, stride: int) -> list[int]:
    """Where windows begin along an axis, so that all of it is covered."""
    last = max(length - side, 0)
    return sorted({*range(0, last, stride), last})

"""Suppression of the cells and masks of one image, without a loop (SOLOv2, Wang et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def keep_peaks(scores: Tensor, grids: Sequence[int]) -> Tensor:
    """Scores, 0 where the cell above, on the left or between has more: (P, C) -> (P, C).

    The cells are those of S x S grids, row by row; each class has peaks of its own.
    """
    kept = []
    for grid, part in zip(grids, scores.split([grid * grid for grid in grids]), strict=True):
        maps = part.mT.unflatten(1, (grid, grid))[None]
        highest = F.max_pool2d(maps, 2, stride=1, padding=1)[..., :-1, :-1]
        kept.append(maps.where(highest == maps, 0)[0].flatten(1).mT)
    return torch.cat(kept)


def matrix_decay(masks: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """The factor in [0, 1] of each score: masks (K, h, w), the best first, (K,) class -> (K,).

    Matrix NMS with a Gaussian: a mask is decayed by the better masks of its class, each by
    exp(-sigma iou^2) over what that mask has itself at most been decayed by, and the smallest of
    these factors counts. Masks are float or double of 0 and 1, and not empty.
    """
    if not len(masks):
        return masks.new_zeros(0)
    flat = masks.flatten(1)
    shared, area = flat @ flat.mT, flat.sum(1)
    overlap = shared / (area[:, None] + area - shared)
    # rows are better masks than columns
    overlap = overlap.masked_fill(labels[:, None] != labels, 0).triu(1)
    most = overlap.amax(0)[:, None]
    return (-sigma * (overlap.square() - most.square())).exp().amin(0)

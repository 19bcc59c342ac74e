"""Boxes around masks."""

from __future__ import annotations

import torch
from torch import Tensor


def boxes_around(masks: Tensor) -> Tensor:
    """The tight box of each mask, in pixels: (M, H, W) bool -> (M, 4) float32 x1, y1, x2, y2.

    x2 and y2 are one more than the last column and row. The box of an empty mask is 0, 0, 0, 0.
    """
    x1, x2 = ends(masks.any(1))
    y1, y2 = ends(masks.any(2))
    return torch.stack([x1, y1, x2, y2], 1).float()


def ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """The first True place and one past the last one, 0 and 0 without: (M, L) bool -> (M,) twice.

    Places are int64.
    """
    length = line.shape[1]
    place = torch.arange(length, device=line.device)
    last = (place + 1).where(line, 0).amax(1)
    first = place.where(line, length).amin(1)
    return torch.minimum(first, last), last

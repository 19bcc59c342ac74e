"""Pooling of feature maps."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pool(maps: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling: (N, C, H, W) -> (N, C, height, width)."""
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps
    # Where both are equal, only the gradient of the plain pooling is deterministic on a GPU.
    if rows % height == 0 and columns % width == 0:
        return F.avg_pool2d(maps, (rows // height, columns // width))
    return F.adaptive_avg_pool2d(maps, (height, width))

"""Maps at other resolutions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pool(maps: Tensor, height: int, width: int) -> Tensor:
    """Averages over areas that cover the map: (N, C, H, W) -> (N, C, height, width)."""
    rows, columns = maps.shape[2:]
    if (rows, columns) == (height, width):
        return maps
    # Where both do the same, the plain pool is the one whose gradient is repeatable on a GPU.
    if rows % height == 0 and columns % width == 0:
        return F.avg_pool2d(maps, (rows // height, columns // width))
    return F.adaptive_avg_pool2d(maps, (height, width))

"""Maps and masks at another size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.dtype import upcast


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation with aligned corners: (N, C, h, w) -> (N, C, *size).

    Maps that have the size already are returned as they are.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(upcast(maps), size, mode="bilinear", align_corners=True)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of the nearest pixel: (N, H, W) -> (N, *size)."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    kept: Tensor = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0]
    return kept.to(mask.dtype)

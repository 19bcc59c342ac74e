"""Maps and masks at another size."""

from __future__ import annotations

import torch
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


def resize_lines(maps: Tensor, size: tuple[int, int], start: int, stop: int) -> Tensor:
    """Some lines of the resized maps: (N, C, h, w) -> (N, C, stop - start, width)."""
    height, width = size
    if tuple(maps.shape[-2:]) == (height, width):
        return maps[:, :, start:stop]
    before = maps.shape[-2]
    place = torch.arange(start, stop, device=maps.device, dtype=upcast(maps).dtype)
    place = place * ((before - 1) / max(height - 1, 1))
    above = place.floor().long().clamp(max=before - 1)
    below = (above + 1).clamp(max=before - 1)
    share = (place - above)[:, None]
    lines = torch.lerp(upcast(maps[:, :, above]), upcast(maps[:, :, below]), share)
    return resize_maps(lines, (stop - start, width))


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The class of the nearest pixel: (N, H, W) -> (N, *size)."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    kept: Tensor = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0]
    return kept.to(mask.dtype)

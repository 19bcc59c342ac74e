"""The pixels of masks near their boundary (Cheng et al., 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def boundary_region(masks: Tensor, distance: int) -> Tensor:
    """The pixels of masks within `distance` pixels of the outside: (K, H, W) bool -> the same.

    What lies outside of the image counts as outside of the masks. Distance is that of the larger
    coordinate.
    """
    side = 2 * distance + 1
    outside = F.pad((~masks)[:, None].float(), (distance,) * 4, value=1.0)
    near = F.max_pool2d(outside, side, stride=1)[:, 0] > 0
    return masks & near

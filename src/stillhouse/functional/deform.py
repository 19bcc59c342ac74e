"""Deformable convolution (Dai et al., 2017)."""

from __future__ import annotations

from torch import Tensor

from stillhouse.kernels import deform
from stillhouse.kernels.dispatch import Accelerated


@Accelerated
def deformable_convolution(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """A convolution of stride 1 and unchanged size whose taps are moved by offsets in pixels.

    (N, C, H, W), (N, 2 K K, H, W) as y, x of each tap, (D, C, K, K) -> (N, D, H, W). Outside of the
    map there are zeros.
    """
    from torchvision.ops import deform_conv2d

    moved: Tensor = deform_conv2d(x, offset, weight, padding=weight.shape[-1] // 2)
    return moved


deformable_convolution.stand_in(deform.supports)(deform.sampled_convolution)

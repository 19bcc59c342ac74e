"""A deformable convolution by bilinear sampling, for CPUs, where torchvision's is slow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def supports(x: Tensor, offset: Tensor, weight: Tensor) -> bool:
    """Whether the tensors are on a CPU."""
    return x.device.type == "cpu"


def sampled_convolution(x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    """Samples every tap of the kernel, then sums over taps and channels.

    (N, C, H, W), (N, 2 K K, H, W), (D, C, K, K) -> (N, D, H, W).
    """
    count, channels, height, width = x.shape
    side = weight.shape[-1]
    steps = torch.arange(side, dtype=x.dtype) - side // 2
    y, x_moved = offset.unflatten(1, (side * side, 2)).unbind(2)
    y = (
        y
        + torch.arange(height, dtype=x.dtype)[:, None]
        + steps.repeat_interleave(side)[:, None, None]
    )
    x_moved = x_moved + torch.arange(width, dtype=x.dtype) + steps.repeat(side)[:, None, None]
    # places as `grid_sample` has them: -1 and 1 are the outer edges of the border pixels
    grid = torch.stack([(2 * x_moved + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    samples = F.grid_sample(x, grid.flatten(1, 2), align_corners=False)
    columns = samples.reshape(count, channels * side * side, height * width)
    moved: Tensor = weight.flatten(1) @ columns
    spread: Tensor = moved.unflatten(-1, (height, width))
    return spread

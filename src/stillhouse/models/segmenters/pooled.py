"""Convolutions of pooled maps."""

from __future__ import annotations

from torch import nn

from stillhouse.models.adapters import SafeBatchNorm2d


def pooled_conv(before: int, width: int, bins: int) -> nn.Sequential:
    """A mean over each cell of a grid, a 1x1 convolution, BatchNorm, ReLU.

    (N, before, H, W) -> (N, width, bins, bins); cells overlap where sides are not divisible.
    """
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(bins),
        nn.Conv2d(before, width, 1, bias=False),
        SafeBatchNorm2d(width),
        nn.ReLU(),
    )

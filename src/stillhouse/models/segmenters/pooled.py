"""Convolutions of pooled maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PooledNorm(nn.BatchNorm2d):
    """A batch norm that uses its statistics for a batch with a single value per channel.

    Such a batch has no deviation. It is what one image is after pooling to one place.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if self.training and input.numel() == self.num_features:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def pooled_conv(before: int, width: int, bins: int) -> nn.Sequential:
    """A mean over each cell of a grid, a 1x1 convolution, BatchNorm, ReLU.

    (N, before, H, W) -> (N, width, bins, bins); cells overlap where sides are not divisible.
    """
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(bins),
        nn.Conv2d(before, width, 1, bias=False),
        PooledNorm(width),
        nn.ReLU(),
    )

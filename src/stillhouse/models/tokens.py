"""Receptive tokens: vectors that each mark a part of a feature map (Huang T. et al., 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.models.connectors import init_kaiming


class ReceptiveTokens(nn.Module):
    """T soft masks of a map of `width` channels, and how much each of them counts in an image."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.01 * torch.randn(count, width))
        first = nn.Conv2d(width, width, 3, padding=1)
        last = nn.Conv2d(width, count, 1)
        for conv in (first, last):
            init_kaiming(conv)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        self.importance = nn.Sequential(first, nn.AdaptiveAvgPool2d(1), last, nn.Flatten())

    def masks(self, maps: Tensor) -> Tensor:
        """The sigmoid of the product of token and place: (N, C, H, W) -> (N, T, H W)."""
        return (self.tokens @ maps.flatten(2)).sigmoid()

    def share(self, maps: Tensor) -> Tensor:
        """How much each mask counts, with sum 1: (N, C, H, W) -> (N, T)."""
        logits: Tensor = self.importance(maps)
        return logits.softmax(1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The maps times the weighted sum of their masks, and the masks.

        (N, C, H, W) -> (N, C, H, W), (N, T, H W).
        """
        masks = self.masks(maps)
        factor = (self.share(maps)[:, None] @ masks).unflatten(2, maps.shape[2:])
        return maps * factor, masks

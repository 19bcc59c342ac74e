"""Attention of feature maps by softmaxes with a temperature, whose mean is 1."""

from __future__ import annotations

from torch import Tensor


def place_attention(maps: Tensor, temperature: float) -> Tensor:
    """Softmax over places of the mean absolute value, times H W: (N, C, H, W) -> (N, H, W)."""
    height, width = maps.shape[2:]
    strength = maps.abs().mean(1).flatten(1) / temperature
    share: Tensor = strength.softmax(1).unflatten(1, (height, width))
    return height * width * share


def channel_attention(maps: Tensor, temperature: float) -> Tensor:
    """Softmax over channels of the mean absolute value, times C: (N, C, H, W) -> (N, C)."""
    strength = maps.abs().mean((2, 3)) / temperature
    return maps.shape[1] * strength.softmax(1)

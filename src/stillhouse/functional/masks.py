"""Soft masks over the places of a feature map, several for each image."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_similarity(masks: Tensor) -> Tensor:
    """Mean Dice coefficient of two different masks of an image: (N, T, P) -> (N,).

    2 <a, b> / (|a|^2 + |b|^2), in [0, 1] for masks that are not negative; 0 for a single mask.
    """
    products = masks @ masks.mT
    squares = products.diagonal(dim1=1, dim2=2)
    sums = (squares[:, :, None] + squares[:, None]).clamp(min=1e-12)
    count = masks.shape[1]
    others = ~torch.eye(count, dtype=torch.bool, device=masks.device)
    return (2 * products / sums * others).sum((1, 2)) / max(1, count * (count - 1))


def masked_difference(
    student: Tensor, teacher: Tensor, masks: Tensor, share: Tensor, power: float = 1.0
) -> Tensor:
    """Squared difference in each mask, then over masks: (N, C, P), (N, C, P) -> (N,).

    sum_t share_t * sum_p m_tp^power d_p / sum_p m_tp with masks (N, T, P), share (N, T), and d the
    mean over channels of the squared difference.
    """
    difference = (student - teacher).square().mean(1)
    weighted = (masks.pow(power) @ difference[..., None]).squeeze(-1)
    return (share * weighted / masks.sum(-1).clamp(min=1e-12)).sum(1)

"""Telling a sample from many others by where another network put them (Tian et al., 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise_contrast(scores: Tensor, log_scale: Tensor, samples: int, eps: float = 1e-7) -> Tensor:
    """Noise-contrastive loss of each row, its first score that of the sample itself.

    With h = exp(score - log_scale) and K drawn among `samples`, -log(h / (h + K / samples + eps))
    of the first and -log((K / samples) / (h + K / samples + eps)) of the K others. Logarithms
    throughout, so that no temperature overflows: (N, 1 + K), () -> (N,).
    """
    noise = (scores.shape[1] - 1) / samples
    log_h = scores - log_scale
    log_sum = torch.logaddexp(log_h, log_h.new_full((), math.log(noise + eps)))
    others = (log_sum[:, 1:] - math.log(noise)).sum(1)
    return log_sum[:, 0] - log_h[:, 0] + others


def other_class(draw: Tensor, label: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Places of samples of any class but one, in the order of classes, each equally likely.

    `first` and `count` say where each class begins in that order and how long it is. Large random
    numbers (N, K), classes to avoid (N,), (C,), (C,) -> places (N, K).
    """
    begins, length = first[label][:, None], count[label][:, None]
    place = draw % (count.sum() - length)
    return place + (place >= begins) * length

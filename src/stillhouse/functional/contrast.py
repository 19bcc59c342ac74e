"""Contrastive loss against embeddings of another network (Tian et al., 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise_contrastive_loss(
    scores: Tensor, log_scale: Tensor, samples: int, eps: float = 1e-7
) -> Tensor:
    """Noise-contrastive loss per row, the first score being positive: (N, 1 + K), () -> (N,).

    With h = exp(score - log_scale) and K negatives drawn from `samples`, the loss is
    -log(h / (h + K / samples + eps)) for the positive and the sum of
    -log((K / samples) / (h + K / samples + eps)) for the negatives. It is computed from
    logarithms, so that no temperature overflows.
    """
    noise = (scores.shape[1] - 1) / samples
    log_h = scores - log_scale
    log_sum = torch.logaddexp(log_h, log_h.new_full((), math.log(noise + eps)))
    negatives = (log_sum[:, 1:] - math.log(noise)).sum(1)
    return log_sum[:, 0] - log_h[:, 0] + negatives


def sample_other_class(draw: Tensor, label: Tensor, first: Tensor, count: Tensor) -> Tensor:
    """Indices of samples of any class but one, drawn uniformly: (N, K), (N,), (C,), (C,) -> (N, K).

    Samples are sorted by class; `first` and `count` are the start and length of each class, `draw`
    large random integers and `label` the classes to avoid.
    """
    start, length = first[label][:, None], count[label][:, None]
    index = draw % (count.sum() - length)
    return index + (index >= start) * length

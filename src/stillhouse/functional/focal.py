"""Focal losses of dense detectors: summed over all classes and rows, most of them background.

A row has at most one class, so the loss of the background is computed everywhere, and corrected at
the one class of each positive row. No one-hot target is made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.kernels import focal as kernel
from stillhouse.kernels.dispatch import Accelerated


def focal(
    logits: Tensor, labels: Tensor, weight: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss (Lin et al., 2017), summed: (..., C), (...) class or -1, (...) weight -> ().

    The loss of a present class is -alpha (1 - p)^gamma log p, that of an absent one
    -(1 - alpha) p^gamma log(1 - p).
    """
    with full_precision(logits):
        z = upcast(logits)
        absent, at = background_of_rows(z, labels, gamma)
        present = alpha * background(-at, gamma) - (1 - alpha) * background(at, gamma)
        rows = (1 - alpha) * absent + present.where(labels >= 0, 0)
        return (rows * weight.to(rows.dtype)).sum()


def quality_focal(
    logits: Tensor, labels: Tensor, quality: Tensor, weight: Tensor, beta: float = 2.0
) -> Tensor:
    """Quality focal loss (Li et al., 2020), summed: (..., C), (...), (...) in [0, 1], (...) -> ().

    The target of the class of a row is its quality, that of all others 0; the loss is
    |target - p|^beta times the cross-entropy.
    """
    with full_precision(logits):
        z = upcast(logits)
        absent, at = background_of_rows(z, labels, beta)
        target = quality.to(z.dtype)
        error = (target - at.sigmoid()).abs().pow(beta)
        present = error * F.binary_cross_entropy_with_logits(at, target, reduction="none")
        rows = absent + (present - background(at, beta)).where(labels >= 0, 0)
        return (rows * weight.to(rows.dtype)).sum()


def background(logits: Tensor, gamma: float) -> Tensor:
    """-p^gamma log(1 - p), the loss of an absent class: (...) -> (...)."""
    return -(gamma * F.logsigmoid(logits)).exp() * F.logsigmoid(-logits)


@Accelerated
def background_of_rows(logits: Tensor, labels: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """`background` summed over classes, and the logit of the class of each row.

    (..., C), (...) class or -1 -> (...), (...); without a class it is the logit of the first one.
    """
    at = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return background(logits, gamma).sum(-1), at


background_of_rows.stand_in(kernel.supports_rows)(kernel.background_of_rows)


def distribution_focal(bins: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the two bins around a target (Li et al., 2020): (..., K), (...) -> (...).

    A target t in [0, K - 1) has the share 1 - (t - floor t) of bin floor t, and the rest of the
    next one.
    """
    with full_precision(bins):
        log = upcast(bins).log_softmax(-1)
        low = target.floor()
        share = (target - low).to(log.dtype)
        index = low.long().clamp(0, bins.shape[-1] - 2)
        two = torch.stack([index, index + 1], -1)
        near, far = log.gather(-1, two).unbind(-1)
        return -(1 - share) * near - share * far

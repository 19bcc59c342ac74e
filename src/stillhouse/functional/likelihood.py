"""How likely a teacher is under what a student expects of it."""

from __future__ import annotations

from torch import Tensor


def gaussian(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Mean negative log-likelihood but for a constant, so that it may be negative (Ahn, 2019).

    (N, C, H, W), (N, C, H, W), (C,) of each channel -> (N,).
    """
    spread = variance[:, None, None]
    surprise = (mean - teacher).square() / spread + spread.log()
    return surprise.flatten(1).mean(1) / 2

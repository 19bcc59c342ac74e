"""Likelihood of the teacher's features under a prediction of the student."""

from __future__ import annotations

from torch import Tensor


def gaussian_nll(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Mean negative log-likelihood without its constant, so it may be negative (Ahn et al., 2019).

    (N, C, H, W), (N, C, H, W), (C,) per channel -> (N,).
    """
    variance = variance[:, None, None]
    losses = (mean - teacher).square() / variance + variance.log()
    return losses.flatten(1).mean(1) / 2

"""Relations between the channels of each image, within a stage and between stages."""

from __future__ import annotations

from torch import Tensor

from stillhouse.functional.distance import unit_vectors


def channel_rows(features: Tensor) -> Tensor:
    """Channels as rows over positions: maps (N, C, H, W) or tokens (N, E, C) -> (N, C, E)."""
    return features.flatten(2) if features.ndim == 4 else features.mT


def selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of unit channels, per image.

    Huang and Wang, 2017, with the polynomial kernel <a, b>^2: (N, C, E), (N, D, E) -> (N,).
    """
    s, t = unit_vectors(student), unit_vectors(teacher)
    return _mean_square(s, s) + _mean_square(t, t) - 2 * _mean_square(s, t)


def fsp_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of the channels of two stages, averaged over positions.

    Yim et al., 2017: (N, C, E), (N, D, E) -> (N, C, D).
    """
    return first @ second.mT / max(1, first.shape[-1])


def _mean_square(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().mean((1, 2))

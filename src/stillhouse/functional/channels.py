"""How the channels of each image relate, within a stage and from one stage to the next."""

from __future__ import annotations

from torch import Tensor

from stillhouse.functional.distance import unit


def planes(features: Tensor) -> Tensor:
    """Channels over places: maps (N, C, H, W) or tokens (N, E, C) -> (N, C, E)."""
    return features.flatten(2) if features.ndim == 4 else features.mT


def selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of unit channels, one an image.

    Huang and Wang, 2017, with the polynomial kernel <a, b>^2: (N, C, E), (N, D, E) -> (N,).
    """
    s, t = unit(student), unit(teacher)
    return _alike(s, s) + _alike(t, t) - 2 * _alike(s, t)


def flow(first: Tensor, second: Tensor) -> Tensor:
    """Products of the channels of two stages, the mean over places.

    Yim et al., 2017: (N, C, E), (N, D, E) -> (N, C, D).
    """
    return first @ second.mT / max(1, first.shape[-1])


def _alike(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT).square().mean((1, 2))

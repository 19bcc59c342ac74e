"""Spatial attention of feature maps: attention (2017), factors (2018), class maps (2023)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stillhouse.functional.distance import mse, unit_vectors
from stillhouse.functional.pooling import pool


def attention(maps: Tensor, power: float = 2.0) -> Tensor:
    """Mean power of the channels at each pixel, as a unit vector: (N, C, H, W) -> (N, H * W)."""
    strength = maps.square() if power == 2 else maps.abs().pow(power)
    return unit_vectors(strength.mean(1).flatten(1))


def attention_transfer(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Mean squared difference of attention (Zagoruyko & Komodakis, 2017); channels may differ.

    (N, C, H, W), (N, D, H, W) -> (N,).
    """
    return mse(attention(student, power), attention(teacher, power))


def factor_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of factors as unit vectors (Kim et al., 2018).

    (N, K, H, W), (N, K, H, W) -> (N,).
    """
    return (unit_vectors(student.flatten(1)) - unit_vectors(teacher.flatten(1))).abs().mean(1)


def attended_factor_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean absolute difference of the attention of factors, as in a widely used port of FT.

    (N, K, H, W), (N, L, H, W) -> (N,).
    """
    return (attention(student) - attention(teacher)).abs().mean(1)


def class_maps(maps: Tensor, weight: Tensor, size: int, normalise: bool = False) -> Tensor:
    """Class activation maps on a grid, without the bias: (N, D, H, W), (C, D) -> (N, C, r * r).

    The mean over the r x r cells is the logit without its bias. Pooling and the 1x1 convolution
    commute, so pooling comes first.
    """
    cells = F.conv2d(pool(maps, size, size), weight[:, :, None, None]).flatten(2)
    return unit_vectors(cells) if normalise else cells


def class_attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of class maps (Guo et al., 2023): (N, C, P), (N, C, P) -> (N,)."""
    return mse(student, teacher).mean(1)

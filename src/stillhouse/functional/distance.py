"""Distances between real vectors, reduced over the last axis, that of the events.

`weight` is the weight of each event; one of weight 0 has no influence.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from stillhouse.kernels import correlation
from stillhouse.kernels.dispatch import Accelerated

Epsilon = Literal["clamp", "add"]


@Accelerated
def mse(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference: (..., E), (..., E), (E,) -> (...)."""
    return weighted_mean((student - teacher).square(), weight).squeeze(-1)


mse.stand_in(correlation.supports_differences)(correlation.mean_squared_error)


def dice_distance(
    student: Tensor, teacher: Tensor, weight: Tensor | None = None, eps: float = 1e-3
) -> Tensor:
    """Squared differences over the sum of both squares: (..., E), (..., E), (E,) -> (...).

    Equal to 1 - 2 <s, t> / (|s|^2 + |t|^2), the Dice loss with squares (Milletari et al., 2016),
    and exactly 0 for equal vectors. The sum of the squares is at least `eps`.
    """
    difference, squares = (student - teacher).square(), student.square() + teacher.square()
    if weight is not None:
        difference, squares = difference * weight, squares * weight
    return difference.sum(-1) / squares.sum(-1).clamp(min=eps)


def cosine(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: Epsilon = "clamp",
) -> Tensor:
    """One minus the cosine similarity: (..., E), (..., E), (E,) -> (...).

    `mode` says what keeps the denominator from zero: each norm is at least `eps` ("clamp"), or
    `eps` is added to their product ("add"), as in published code, which ignores tiny vectors.
    """
    if weight is not None:
        student, teacher = (x * weight.sqrt() for x in (student, teacher))
    if mode == "add":
        return 1 - (student * teacher).sum(-1) / (vector_norm(student) * vector_norm(teacher) + eps)
    s, t = (x / vector_norm(x).clamp(min=eps)[..., None] for x in (student, teacher))
    # Equal to 1 - <s, t> for unit vectors, and exactly 0 where they are equal.
    flat = (vector_norm(student) < eps) | (vector_norm(teacher) < eps)
    return ((s - t).square().sum(-1) / 2).where(~flat, 1 - (s * t).sum(-1))


@Accelerated
def pearson(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: Epsilon = "clamp",
) -> Tensor:
    """One minus the Pearson correlation: (..., E), (..., E), (E,) -> (...).

    For a student vector that is constant up to rounding the value is what the formula gives, about
    1, and the gradient is 0 instead of noise divided by `eps`.
    """
    s, t = (x - weighted_mean(x, weight) for x in (student, teacher))
    centred = s.detach() if weight is None else s.detach() * weight.sqrt()
    count = student.shape[-1] if weight is None else weight.sum()
    size = weighted_mean(student.detach().abs(), weight).squeeze(-1) * count**0.5
    flat = vector_norm(centred) <= correlation.FLAT * size
    s = torch.where(flat[..., None], s.detach(), s)
    return cosine(s, t, weight, eps, mode)


pearson.stand_in(correlation.supports_correlation)(correlation.correlation)


def weighted_mean(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted mean over the last axis, which is kept: (..., E), (E,) -> (..., 1).

    It is 0 where there are no events.
    """
    if weight is None:
        return x.sum(-1, keepdim=True) / max(1, x.shape[-1])
    return (x * weight).sum(-1, keepdim=True) / weight.sum().clamp(min=1e-12)


def vector_norm(x: Tensor) -> Tensor:
    """Euclidean norm, whose gradient at the zero vector is zero: (..., E) -> (...)."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return length


def unit_vectors(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Vectors divided by their norm: (..., E) -> (..., E).

    A vector no longer than `eps` is divided by `eps` and has no gradient, which would be multiplied
    by 1 / eps.
    """
    length = vector_norm(x)[..., None]
    return x.where(length > eps, x.detach()) / length.clamp(min=eps)

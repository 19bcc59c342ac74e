"""Distances between real vectors. The event axis is last, and is the one that goes.

`weight` counts the events: one of weight 0 might as well not be there.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Epsilon = Literal["clamp", "add"]


def mse(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference: (..., E), (..., E), (E,) -> (...)."""
    return average((student - teacher).square(), weight).squeeze(-1)


def cosine(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: Epsilon = "clamp",
) -> Tensor:
    """One minus the cosine of the angle: (..., E), (..., E), (E,) -> (...).

    `mode` says what keeps the denominator from zero: each norm is at least `eps`, or `eps` is
    added to their product, as published code does at the price of swallowing tiny vectors.
    """
    if weight is not None:
        student, teacher = (x * weight.sqrt() for x in (student, teacher))
    if mode == "add":
        return 1 - (student * teacher).sum(-1) / (norm(student) * norm(teacher) + eps)
    s, t = (x / norm(x).clamp(min=eps)[..., None] for x in (student, teacher))
    # Equal to 1 - <s, t> for unit vectors, and exactly 0 where they are the same.
    flat = (norm(student) < eps) | (norm(teacher) < eps)
    return ((s - t).square().sum(-1) / 2).where(~flat, 1 - (s * t).sum(-1))


def pearson(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: Epsilon = "clamp",
) -> Tensor:
    """One minus the correlation: (..., E), (..., E), (E,) -> (...).

    A student vector that is constant up to rounding has no correlation: the value is what the
    formula gives, about 1, and the gradient is 0 instead of noise divided by `eps`.
    """
    s, t = (x - average(x, weight) for x in (student, teacher))
    seen, size = s.detach(), student.detach().abs()
    if weight is not None:
        seen, size = seen * (weight > 0), size * (weight > 0)
    flat = norm(seen) <= 1e-5 * size.mean(-1) * student.shape[-1] ** 0.5
    s = torch.where(flat[..., None], s.detach(), s)
    return cosine(s, t, weight, eps, mode)


def average(x: Tensor, weight: Tensor | None) -> Tensor:
    """Weighted mean over the event axis, which stays with length 1: (..., E), (E,) -> (..., 1).

    Of no events at all it is 0.
    """
    if weight is None:
        return x.sum(-1, keepdim=True) / max(1, x.shape[-1])
    return (x * weight).sum(-1, keepdim=True) / weight.sum().clamp(min=1e-12)


def norm(x: Tensor) -> Tensor:
    """Euclidean length, whose gradient at the zero vector is zero: (..., E) -> (...)."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return length


def unit(x: Tensor, eps: float = 1e-12) -> Tensor:
    """Vectors of length 1: (..., E) -> (..., E). One no longer than `eps` gets no gradient.

    It is divided by `eps`, and a vector without a direction has none to be taught: a gradient of
    1 / eps would come back.
    """
    length = norm(x)[..., None]
    return x.where(length > eps, x.detach()) / length.clamp(min=eps)

"""Correlations of the columns of two matrices from sums over rows, which can be added in parts."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.functional.distance import Epsilon
from stillhouse.kernels.correlation import FLAT

MOMENTS = 8  # rows, and weighted sums of 1, s, t, |s|, s^2, t^2 and s t


def column_moments(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """The sums over rows of each column: (N, C), (N, C), (N,) -> (MOMENTS, C) in double precision.

    Single precision where the device has no other. Rows of weight 0 do not count.
    """
    kind = torch.float32 if student.device.type == "mps" else torch.float64
    s, t, w = student.to(kind), teacher.to(kind), weight.to(kind)
    rows = torch.stack([(w > 0).sum().to(kind), w.sum()])[:, None].expand(2, s.shape[1])
    weighted = w[:, None] * s
    sums = [w @ s, w @ t, w @ s.abs(), (weighted * s).sum(0), w @ t.square(), (weighted * t).sum(0)]
    return torch.cat([rows, torch.stack(sums)])


def correlation_of_moments(
    moments: Tensor, eps: float = 1e-8, mode: Epsilon = "clamp"
) -> tuple[Tensor, Tensor]:
    """One minus the Pearson correlation of each column, and whether it has at least two rows.

    (MOMENTS, C) -> (C,), (C,). As `pearson` with the weights of rows.
    """
    rows, mass, s, t, size, ss, tt, st = moments
    mass = mass.clamp(min=1e-12)
    squares = ss - s.square() / mass, tt - t.square() / mass
    # the square root has no slope at 0
    own, other = (square.clamp(min=torch.finfo(square.dtype).tiny).sqrt() for square in squares)
    product = st - s * t / mass
    if mode == "add":
        losses = 1 - product / (own * other + eps)
    else:
        losses = 1 - product / (own.clamp(min=eps) * other.clamp(min=eps))
    flat = own.detach() <= FLAT * size.detach() / mass.sqrt()
    return torch.where(flat, losses.detach(), losses), rows > 1

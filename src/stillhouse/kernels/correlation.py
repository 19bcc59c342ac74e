"""Squared differences and correlations in closed form, which keep nothing but the gradient.

With u and v the centred vectors divided by their norms, 1 - <u, v> = |u - v|^2 / 2 has the slope
(u - v - (1 - <u, v>) u) / |s| in the student's vector s. It is exactly 0 where u equals v.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.kernels.rows import chunk_of_rows, loss_of_rows

LEAST = 2**13  # elements; in fewer, calls cost more than memory
FLAT = 1e-5  # deviation of a constant vector after rounding, as a part of its mean size


def supports_differences(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> bool:
    """Whether only the student learns, by vectors that lie in memory one after the other."""
    return weight is None and _alike(student, teacher) and student.stride(-1) == 1


def supports_correlation(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: str = "clamp",
) -> bool:
    """Whether vectors are rows of a matrix, or columns of one with or without weights."""
    if mode != "clamp" or (weight is not None and weight.requires_grad):
        return False
    is_matrix = _alike(student, teacher) and student.ndim == 2
    columns = is_matrix and student.mT.is_contiguous()
    return columns or supports_differences(student, teacher, weight)


def _alike(student: Tensor, teacher: Tensor) -> bool:
    full = student.dtype in (torch.float32, torch.float64)
    shaped = student.shape == teacher.shape and student.ndim > 1 and student.numel() >= LEAST
    return full and shaped and student.dtype == teacher.dtype and not teacher.requires_grad


def mean_squared_error(student: Tensor, teacher: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference: (..., E), (..., E) -> (...)."""
    return loss_of_rows(_square, student, teacher)


def _square(
    scratch: Sequence[Tensor], gradient: Tensor | None, student: Tensor, teacher: Tensor
) -> Tensor:
    difference = torch.sub(student, teacher, out=scratch[0])
    losses: Tensor = torch.linalg.vecdot(difference, difference) / student.shape[-1]
    if gradient is not None:
        torch.mul(difference, 2 / student.shape[-1], out=gradient)
    return losses


def correlation(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-8,
    mode: str = "clamp",
) -> Tensor:
    """One minus the Pearson correlation: (..., E), (..., E), (E,) -> (...)."""
    if weight is None and student.stride(-1) == 1:

        def formula(*parts: Any) -> Tensor:
            return _correlate_rows(eps, *parts)

        return loss_of_rows(formula, student, teacher)
    losses: Tensor = _Columns.apply(student.mT, teacher.mT, weight, eps)
    return losses


def _correlate_rows(
    eps: float,
    scratch: Sequence[Tensor],
    gradient: Tensor | None,
    student: Tensor,
    teacher: Tensor,
) -> Tensor:
    s, t, difference, *_ = scratch
    size = torch.abs(student, out=s).mean(-1)
    norms = []
    for vectors, out in ((student, s), (teacher, t)):
        torch.sub(vectors, vectors.mean(-1, keepdim=True), out=out)
        norms.append(torch.linalg.vector_norm(out, dim=-1))
        out.div_(norms[-1].clamp(min=eps)[:, None])
    torch.sub(s, t, out=difference)
    dots = torch.linalg.vecdot(s, t), torch.linalg.vecdot(difference, difference)
    losses, share, factor = _reduce(norms, dots, size * student.shape[-1] ** 0.5, eps)
    if gradient is not None:
        torch.sub(difference, s.mul_(share[:, None]), out=gradient).mul_(factor[:, None])
    return losses


def _reduce(
    norms: Sequence[Tensor], dots: Sequence[Tensor], size: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair of vectors: the loss, and the slope as (u - v - share u) * factor.

    `norms` are the student's and the teacher's, `dots` are <u, v> and |u - v|^2, and `size` is the
    norm of a vector whose entries have the student's mean size.
    """
    (student, teacher), (product, square) = norms, dots
    long = student >= eps
    losses = torch.where(long & (teacher >= eps), square / 2, 1 - product)
    factor = torch.where(student <= FLAT * size, 0.0, 1 / student.clamp(min=eps))
    return losses, torch.where(long, losses, 1.0), factor


class _Columns(torch.autograd.Function):
    """The same for the columns of a matrix, some rows at a time: (N, C), (N, C), (N,) -> (C,)."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, weight: Tensor | None, eps: float
    ) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(student, teacher, weight)
        columns = Columns(student, teacher, weight, eps)
        ctx.gradient = columns.gradient() if ctx.needs_input_grad[0] else None
        return columns.losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # used up by an earlier backward of the same graph
            student, teacher, weight = ctx.saved_tensors
            gradient = Columns(student, teacher, weight, ctx.eps).gradient()
        return gradient.mul_(upstream), None, None, None


class Columns:
    """The correlations of the columns of two matrices, whose rows may have weights."""

    def __init__(self, student: Tensor, teacher: Tensor, weight: Tensor | None, eps: float) -> None:
        self.matrices = student, teacher
        self.step = chunk_of_rows(student)
        weight = student.new_ones(len(student)) if weight is None else weight.to(student.dtype)
        self.root = weight.sqrt()[:, None]
        mass = weight.sum()
        self.means = [weight @ x / mass.clamp(min=1e-12) for x in self.matrices]
        self.inverse = [student.new_ones(student.shape[1])] * 2
        squares = [torch.stack([s.square().sum(0), t.square().sum(0)]) for s, t in self.centred()]
        norms = torch.stack(squares).sum(0).sqrt()
        self.inverse = list(1 / norms.clamp(min=eps))
        sums = [torch.stack([(s * t).sum(0), (s - t).square().sum(0)]) for s, t in self.centred()]
        size = weight @ student.abs() / mass.clamp(min=1e-12) * mass.sqrt()
        dots = torch.stack(sums).sum(0).unbind()
        self.losses, self.share, self.factor = _reduce(norms.unbind(), dots, size, eps)

    def centred(self) -> Iterator[list[Tensor]]:
        """Some rows of both matrices: centred, times the root of their weight, and divided."""
        chunks = zip(*(x.split(self.step) for x in (*self.matrices, self.root)), strict=True)
        for *parts, root in chunks:
            together = zip(parts, self.means, self.inverse, strict=True)
            yield [(x - mean).mul_(root).mul_(inverse) for x, mean, inverse in together]

    def gradient(self) -> Tensor:
        """The slope of the loss of each column: -> (N, C)."""
        slope = torch.empty_like(self.matrices[0])
        parts = zip(slope.split(self.step), self.root.split(self.step), self.centred(), strict=True)
        for out, root, (s, t) in parts:
            torch.sub(s, t, out=out).addcmul_(s, self.share, value=-1).mul_(root).mul_(self.factor)
        return slope

"""Binary divergences summed over the classes of a row, weighted by the disagreement or not.

They are symmetric in the signs of both logits. The teacher's is made negative, so that its q is at
most 1/2 and precise, where 1 - 4e-8 is 1. With the tempered logits a of the student and b of the
teacher, the cross-entropy is softplus(a) - q a, the KL is that minus softplus(b) - q b, and the
slope of both in a is p - q.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from stillhouse.kernels.binary import FINITE
from stillhouse.kernels.binary import supports as only_the_student_learns
from stillhouse.kernels.rows import inverse_temperature, is_per_row, loss_of_rows, softplus


def supports(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    entropy: bool = False,
    beta: float = 0.0,
    detach: bool = False,
) -> bool:
    """Whether only the student learns, by one temperature a row, and 1 for weighted classes."""
    alone = only_the_student_learns(student, teacher, temperature)
    plain = not beta or (not isinstance(temperature, Tensor) and temperature == 1)
    return alone and plain and is_per_row(temperature, student)


def sum_of_classes(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    entropy: bool = False,
    beta: float = 0.0,
    detach: bool = False,
) -> Tensor:
    """Sum over classes of |q - p|^beta times the divergence: (..., C), (..., C) -> (...)."""
    inverse = inverse_temperature(temperature, student)
    s, t = (z.to(inverse.dtype) for z in (student, teacher))
    formula = partial(_formula, entropy=entropy, beta=beta, detach=detach)
    return loss_of_rows(formula, s, t, inverse)


def _formula(
    scratch: Sequence[Tensor],
    gradient: Tensor | None,
    student: Tensor,
    teacher: Tensor,
    inverse: Tensor,
    *,
    entropy: bool,
    beta: float,
    detach: bool,
) -> Tensor:
    scale, a, b, loss, spare = scratch
    torch.copysign(inverse, teacher, out=scale).neg_()
    torch.mul(teacher, scale, out=b)
    # infinite logits are a masked class; 0 * infinity would be NaN
    torch.clamp(student, -FINITE, FINITE, out=a).mul_(scale)
    (_cross_entropy if entropy else _kl)(a, b, loss, spare)
    if gradient is None and not beta:
        return loss.sum(-1)
    p, q = a.sigmoid_(), b
    slope = torch.sub(p, q, out=q)
    if beta:
        weight = torch.abs(slope, out=spare)
        weight = weight if beta == 1 else weight.pow_(beta)
        if gradient is not None:
            torch.mul(slope, weight, out=gradient)
            if not detach:
                # the slope of |p - q|^beta is beta times `rate` times p (1 - p)
                rate = slope.sign_() if beta == 1 else _quotient(weight, slope)
                gradient.addcmul_(rate, p.addcmul_(p, p, value=-1).mul_(loss), value=beta)
            gradient.mul_(scale)
        loss.mul_(weight)
    elif gradient is not None:
        torch.mul(slope, scale, out=gradient)
    return loss.sum(-1)


def _cross_entropy(a: Tensor, b: Tensor, loss: Tensor, spare: Tensor) -> None:
    """Writes the cross-entropy of each class into `loss`, and q into `b`, which is at most 0."""
    q = b.sigmoid_()
    softplus(a, loss, spare).addcmul_(q, a, value=-1)


def _kl(a: Tensor, b: Tensor, loss: Tensor, spare: Tensor) -> None:
    """Writes the KL of each class into `loss`, with one logarithm for both softplus, and q."""
    b.clamp_min_(-FINITE)
    torch.abs(a, out=loss).neg_().exp_().sub_(torch.exp(b, out=spare))
    torch.sub(a, b, out=spare)
    q = b.sigmoid_()
    # (1 + e^-|a|) / (1 + e^b) = 1 + (e^-|a| - e^b) (1 - q)
    loss.addcmul_(loss, q, value=-1).log1p_().addcmul_(q, spare, value=-1)
    loss.add_(torch.clamp_min(a, 0, out=spare))


def _quotient(weight: Tensor, slope: Tensor) -> Tensor:
    """weight / slope, and 0 where the slope is 0: (n, C), (n, C) -> (n, C)."""
    return weight.div(slope).masked_fill_(slope == 0, 0)

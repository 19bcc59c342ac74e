"""The KL between tempered softmaxes in closed form: its slope in the tempered logits is p - q."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.kernels.binary import FINITE
from stillhouse.kernels.binary import supports as only_the_student_learns
from stillhouse.kernels.rows import inverse_temperature, is_per_row, loss_of_rows


def supports(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> bool:
    """Whether only the student learns, by one temperature a row."""
    alone = only_the_student_learns(student, teacher, temperature)
    return alone and is_per_row(temperature, student)


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL of tempered softmaxes: (..., C), (..., C) -> (...).

    A class that the student alone rules out by a logit of -inf costs 1e30 times its probability.
    """
    inverse = inverse_temperature(temperature, student)
    s, t = (z.to(inverse.dtype) for z in (student, teacher))
    return loss_of_rows(_formula, s, t, inverse)


def _formula(
    scratch: Sequence[Tensor],
    gradient: Tensor | None,
    student: Tensor,
    teacher: Tensor,
    inverse: Tensor,
) -> Tensor:
    log_p, log_q, q, *_ = scratch
    for logits, out in ((student, log_p), (teacher, log_q)):
        torch.mul(logits, inverse, out=q)
        torch.log_softmax(q, -1, out=out).clamp_min_(-FINITE)  # a masked class
    torch.exp(log_q, out=q)
    losses: Tensor = torch.linalg.vecdot(q, log_q.sub_(log_p))
    if gradient is not None:
        torch.sub(log_p.exp_(), q, out=gradient).mul_(inverse)
    return losses

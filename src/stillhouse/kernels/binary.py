"""Yes-or-no divergences in closed form: no pair of log-probabilities is ever written down.

With p = sigmoid(a) and q = sigmoid(b), KL(q || p) = softplus(a) - softplus(b) - q (a - b), whose
gradient in a is p - q: one tensor is kept for backward where the reference keeps five.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FINITE = 1e30  # infinite logits are a masked class; 0 * infinity would be no number


def fits(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> bool:
    """Whether nobody asks for a gradient in anything but the student's logits."""
    learnt = isinstance(temperature, Tensor) and temperature.requires_grad
    return not (teacher.requires_grad or learnt)


def kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL of tempered answers, classes apart: (...), (...) -> (...)."""
    losses: Tensor = _KL.apply(*logits(student, teacher, temperature))
    return losses


def cross_entropy(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """The same and the teacher's entropy: (...), (...) -> (...)."""
    a, b = logits(student, teacher, temperature)
    return -F.logsigmoid(-a) - b.sigmoid() * a  # torch's own form cancels at large a


def logits(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Tempered logits in single precision or better, yes and no exchanged where q is above a half.

    Both losses are the same either way round, and a small q has all its digits: 1 - 4e-8 has none.
    """
    kind = torch.promote_types(student.dtype, torch.float32)
    a, b = (z.to(kind).clamp(-FINITE, FINITE) / temperature for z in (student, teacher))
    return torch.where(b > 0, -a, a), -b.abs()


class _KL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        p, q = a.sigmoid(), b.sigmoid()
        # softplus itself is cut off at 20
        losses = F.logsigmoid(-b).sub_(F.logsigmoid(-a)).addcmul_(q, a - b, value=-1)
        ctx.save_for_backward(p.sub_(q))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return gradient * difference, None

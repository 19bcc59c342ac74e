"""Binary divergences in closed form, without a tensor of pairs of log-probabilities.

With p = sigmoid(a) and q = sigmoid(b), KL(q || p) = softplus(a) - softplus(b) - q (a - b), whose
gradient in a is p - q: one tensor is saved for backward where the reference saves five.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FINITE = 1e30  # infinite logits are a masked class; 0 * infinity would be NaN


def supports(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> bool:
    """Whether only the student's logits need a gradient."""
    learned = isinstance(temperature, Tensor) and temperature.requires_grad
    return not (teacher.requires_grad or learned)


def binary_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL of tempered sigmoids, per class: (...), (...) -> (...)."""
    losses: Tensor = _KL.apply(*tempered_logits(student, teacher, temperature))
    return losses


def binary_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0
) -> Tensor:
    """Cross-entropy of tempered sigmoids, per class: (...), (...) -> (...)."""
    a, b = tempered_logits(student, teacher, temperature)
    return -F.logsigmoid(-a) - b.sigmoid() * a  # torch's form loses precision at large a


def tempered_logits(
    student: Tensor, teacher: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Logits / temperature in float32 or better, with both signs flipped where q > 0.5.

    Both losses are symmetric in the sign, and a small q keeps its precision, while 1 - 4e-8 is 1.
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

"""The focal loss of an absent class in closed form: one tensor is saved for backward."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.kernels.rows import loss_and_entry_of_rows, softplus


def supports(logits: Tensor, gamma: float) -> bool:
    """Any logits of single or double precision."""
    return logits.dtype in (torch.float32, torch.float64)


def background(logits: Tensor, gamma: float) -> Tensor:
    """-p^gamma log(1 - p): (...) -> (...)."""
    losses: Tensor = _Background.apply(logits, gamma)
    return losses


def supports_rows(logits: Tensor, labels: Tensor, gamma: float) -> bool:
    """As `supports`."""
    return supports(logits, gamma)


def background_of_rows(logits: Tensor, labels: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """The sum over classes, and the logit of one class: (..., C), (...) -> (...), (...)."""
    formula = partial(_formula, gamma=gamma)
    return loss_and_entry_of_rows(formula, logits, labels.clamp(min=0))


def _formula(
    scratch: Sequence[Tensor], gradient: Tensor | None, logits: Tensor, *, gamma: float
) -> Tensor:
    p, loss, power, spare, _ = scratch
    softplus(logits, loss, spare)
    torch.sigmoid(logits, out=p)
    torch.pow(p, gamma, out=power)
    if gradient is not None:
        # the derivative is p^gamma (p + gamma (1 - p) loss)
        torch.mul(loss, torch.neg(p, out=spare).add_(1), out=gradient)
        gradient.mul_(gamma).add_(p).mul_(power)
    return loss.mul_(power).sum(-1)


class _Background(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, gamma: float) -> Tensor:
        p, loss = logits.sigmoid(), F.logsigmoid(-logits).neg_()
        power = p.square() if gamma == 2 else p.pow(gamma)
        if ctx.needs_input_grad[0]:
            # the derivative is p^gamma (p + gamma (1 - p) loss)
            slope = (1 - p).mul_(loss).mul_(gamma).add_(p).mul_(power)
            ctx.save_for_backward(slope)
        return loss.mul_(power)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None

"""The focal loss of absent classes, summed over each row, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from stillhouse.kernels.rows import loss_and_entry_of_rows, softplus


def supports_rows(logits: Tensor, labels: Tensor, gamma: float) -> bool:
    """Any logits of single or double precision."""
    return logits.dtype in (torch.float32, torch.float64)


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

"""Builds terms from losses, and gathers the rows of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.distributed import gather
from stillhouse.types import Term


def row_term(losses: Tensor, weight: Tensor | None, factor: float = 1.0) -> Term:
    """The weighted mean of per-image losses: (N,), (N,) -> Term of weight `factor`."""
    counted = losses.new_ones(len(losses)) if weight is None else weight.to(losses.dtype)
    return Term((losses * counted).sum(), counted.sum(), factor)


def batch_term(loss: Tensor, factor: float = 1.0) -> Term:
    """A loss that every rank computes from the same gathered rows: () -> Term."""
    return Term(loss, torch.ones_like(loss), factor)


def gather_rows(weight: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of all ranks with a positive weight, in rank order: (N,), (N, ...) -> (M, ...)."""
    if weight is None:
        return tuple(gather(tensor) for tensor in tensors)
    counted = gather(weight) > 0
    return tuple(gather(tensor)[counted] for tensor in tensors)

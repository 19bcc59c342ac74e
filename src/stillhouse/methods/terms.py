"""From losses to terms, with the rows of all ranks where a loss relates them."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.distributed import gather
from stillhouse.types import Term


def row_term(losses: Tensor, weight: Tensor | None, factor: float = 1.0) -> Term:
    """The mean of one loss an image, each counted by its weight: (N,), (N,) -> Term."""
    counted = losses.new_ones(len(losses)) if weight is None else weight.to(losses.dtype)
    return Term((losses * counted).sum(), counted.sum(), factor)


def batch_term(loss: Tensor, factor: float = 1.0) -> Term:
    """A loss that every rank computes alike from gathered rows: () -> Term."""
    return Term(loss, torch.ones_like(loss), factor)


def rows_of_all(weight: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The images of every rank that count anything, in rank order: (N,), (N, ...) -> (M, ...)."""
    if weight is None:
        return tuple(gather(tensor) for tensor in tensors)
    there = gather(weight) > 0
    return tuple(gather(tensor)[there] for tensor in tensors)

"""Losses of rows in chunks that fit into the cache, each with its gradient in the same pass.

Only the gradient is as large as the logits. It is saved by forward and scaled in place by backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# (scratch, gradient, logits, *others) of some rows -> (n,). `scratch` is memory, (BUFFERS, n, C).
# The slope of each row's loss is written into `gradient`, (n, C), unless that is None.
Formula = Callable[..., Tensor]

BUFFERS = 5
ELEMENTS_OF_A_CHUNK = {"cpu": 2**16}  # BUFFERS of them fit into a cache of 2 MB
ELEMENTS_ELSEWHERE = 2**20  # fewer and larger kernels


def loss_of_rows(formula: Formula, logits: Tensor, *others: Tensor) -> Tensor:
    """Loss of each row, differentiable in the logits only: (..., C), (..., K)... -> (...)."""
    flat = [x.flatten(0, -2) for x in (logits, *others)]
    losses: Tensor = _Rows.apply(formula, None, *flat)[0]
    return losses.view(logits.shape[:-1])


def loss_and_entry_of_rows(
    formula: Formula, logits: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of each row, and its logit at `index`: (..., C), (...) int -> (...), (...).

    The gradients of both share their memory.
    """
    losses, entries = _Rows.apply(formula, index.flatten()[:, None], logits.flatten(0, -2))
    return losses.view(index.shape), entries.view(index.shape)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, formula: Formula, index: Tensor | None, logits: Tensor, *others: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        ctx.formula = formula
        ctx.save_for_backward(index, logits, *others)
        losses, ctx.gradient = _sweep(formula, logits, others, ctx.needs_input_grad[2])
        return losses, None if index is None else logits.gather(1, index)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, upstream: Tensor, upstream_of_entries: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        index, logits, *others = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:  # used up by an earlier backward of the same graph
            gradient = _sweep(ctx.formula, logits, others, slope=True)[1]
        gradient.mul_(upstream[:, None])
        if index is not None:
            gradient.scatter_add_(1, index, upstream_of_entries)
        return None, None, gradient, *[None] * len(others)


def _sweep(
    formula: Formula, logits: Tensor, others: Sequence[Tensor], slope: bool
) -> tuple[Tensor, Tensor | None]:
    """Losses, and the gradient of each where `slope`: (N, C), (N, K)... -> (N,), (N, C)."""
    count, classes = logits.shape
    step = chunk_of_rows(logits)
    scratch = logits.new_empty(BUFFERS, min(step, count), classes)
    gradient = logits.new_empty(count, classes) if slope else None
    slopes = repeat(None) if gradient is None else gradient.split(step)
    chunks = zip(*(x.split(step) for x in (logits, *others)), strict=True)
    losses = [
        formula(scratch[:, : len(chunk[0])].unbind(), part, *chunk)
        for chunk, part in zip(chunks, slopes, strict=False)
    ]
    return torch.cat(losses), gradient


def chunk_of_rows(matrix: Tensor) -> int:
    """How many rows of (N, C) are worked on at a time."""
    elements = ELEMENTS_OF_A_CHUNK.get(matrix.device.type, ELEMENTS_ELSEWHERE)
    return max(1, elements // max(1, matrix.shape[1]))


def is_per_row(temperature: float | Tensor, logits: Tensor) -> bool:
    """Whether each row of (..., C) has one temperature: a number, () or (..., 1)."""
    if not isinstance(temperature, Tensor) or temperature.ndim == 0:
        return logits.ndim > 1
    return logits.ndim > 1 and temperature.shape == (*logits.shape[:-1], 1)


def inverse_temperature(temperature: float | Tensor, logits: Tensor) -> Tensor:
    """1 / temperature in float32 or better: (), (..., C) -> (..., 1)."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    inverse = 1 / (temperature.to(kind) if isinstance(temperature, Tensor) else temperature)
    inverse = torch.as_tensor(inverse, dtype=kind, device=logits.device)
    return inverse.expand(*logits.shape[:-1], 1)


def softplus(x: Tensor, out: Tensor, spare: Tensor) -> Tensor:
    """log(1 + e^x), exact at any x, where torch's is cut off at 20: (...) -> `out`, (...)."""
    torch.abs(x, out=out).neg_().exp_().log1p_()
    return out.add_(torch.clamp_min(x, 0, out=spare))

"""Sums over the pieces of a large tensor, of which only the gradient is as large as the tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stillhouse.types import Place

Function = Callable[[Tensor, int], Tensor]  # (piece, its number) -> () or (...)


def sum_over_pieces(function: Function, whole: Tensor, places: Sequence[Place]) -> Tensor:
    """The sum of a number for each piece, differentiable in `whole` only: -> ().

    What is made for a piece, which is `whole[place]`, is freed before the next one, but for its
    gradient, which backward scales in place. Pieces may overlap.
    """
    total: Tensor = _Sum.apply(function, whole, places, True)
    return total


def sums_over_pieces(function: Function, whole: Tensor, places: Sequence[Place]) -> Tensor:
    """The same for several numbers: -> (...). Backward evaluates the function once more."""
    totals: Tensor = _Sum.apply(function, whole, places, False)
    return totals


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Function, whole: Tensor, places: Sequence[Place], early: bool
    ) -> Tensor:
        ctx.function, ctx.places, ctx.gradient = function, places, None
        ctx.save_for_backward(whole)
        if early and ctx.needs_input_grad[1]:
            ctx.gradient = torch.zeros_like(whole)
        return _sweep(function, whole, places, ctx.gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor, None, None]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None:
            return None, gradient.mul_(upstream), None, None
        (whole,) = ctx.saved_tensors
        gradient = torch.zeros_like(whole)
        _sweep(ctx.function, whole, ctx.places, gradient, upstream)
        return None, gradient, None, None


def _sweep(
    function: Function,
    whole: Tensor,
    places: Sequence[Place],
    gradient: Tensor | None,
    upstream: Tensor | None = None,
) -> Tensor:
    """The sum over pieces; the gradient of each piece is written into `gradient`."""
    totals = []
    for number, place in enumerate(places):
        part = whole[place].detach()
        with torch.set_grad_enabled(gradient is not None):
            value = function(part.requires_grad_(gradient is not None), number)
        if gradient is not None:
            gradient[place] += torch.autograd.grad(value, part, upstream)[0]
        totals.append(value.detach())
    return torch.stack(totals).sum(0)

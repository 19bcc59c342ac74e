"""Collectives. With engine, the only room that knows there are ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillhouse.types import Site, Term, Terms

V = TypeVar("V")


def rank() -> int:
    """Which process this is, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def combine(terms: Terms) -> Tensor:
    """The loss to call backward on: the sum of weight * total / mass, mass being that of all ranks.

    Every rank brings the same terms in the same order; one with nothing to say brings mass 0.
    """
    mass = torch.stack([share(term).detach() for term in terms.values()])
    if world_size() > 1:
        dist.all_reduce(mass)
        mass = mass / world_size()  # DDP divides the gradient by world_size once more
    totals = torch.stack([term.weight * term.total for term in terms.values()])
    return (totals / mass.clamp(min=1e-12)).sum()


def means(terms: Terms) -> Mapping[str, Tensor]:
    """What each term is over all ranks, without its weight, for the record."""
    pairs = torch.stack([torch.stack((t.total.detach(), share(t))) for t in terms.values()])
    if world_size() > 1:
        dist.all_reduce(pairs)
    values = pairs[:, 0] / pairs[:, 1].clamp(min=1e-12)
    return dict(zip(terms, values, strict=True))


def share(term: Term) -> Tensor:
    """What this rank adds to the mass of a term: () in the precision of its total."""
    mass = term.mass.to(term.total.dtype)
    return mass / world_size() if term.shared else mass


def gather(x: Tensor) -> Tensor:
    """The rows of every rank, in rank order, for a loss that all ranks then compute alike.

    Backward runs no collective: each rank already holds the gradient of its own rows. The factor
    that undoes DDP's averaging is applied here and not to the loss, so that parameters which act
    after the gather keep the right gradient too.
    """
    out: Tensor = _Gather.apply(x) if world_size() > 1 else x
    return out


def gather_objects(value: V) -> list[V]:
    """What every rank has, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def whole(site: Site) -> Site:
    """The site, with the rows of every rank."""
    optional = {
        name: gather(value)
        for name in ("target", "weight")
        if (value := getattr(site, name)) is not None
    }
    return replace(site, student=gather(site.student), teacher=gather(site.teacher), **optional)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """What DDP does for the pupil, for parameters that it does not hold."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # a rank without images has no gradient, and joins all the same
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def leave() -> None:
    """End the group of ranks, if this process is in one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.tensor(len(x), device=x.device)
        lengths = [torch.empty_like(length) for _ in range(world_size())]
        dist.all_gather(lengths, length)
        sizes = [int(n) for n in lengths]
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        ctx.span = sum(sizes[: dist.get_rank()]), len(x)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.narrow(0, *ctx.span) * world_size()


def on_first_rank(action: Callable[[], V]) -> V:
    """What the first rank got from an action that only one may do; its error reaches all ranks."""
    if world_size() == 1:
        return action()
    said: list[Any] = [None, None]
    if rank() == 0:
        try:
            said[0] = action()
        except Exception as error:  # told to the others, who would wait for ever, and raised again
            said[1] = error
    dist.broadcast_object_list(said, src=0)
    if said[1] is not None:
        raise said[1]
    result: V = said[0]
    return result

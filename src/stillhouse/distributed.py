"""Collective operations. Besides the engine, the only code that deals with ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.types import Site, Term, Terms, divisor

V = TypeVar("V")


def rank() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def combine(terms: Terms) -> Tensor:
    """The loss for backward: the sum of weight * total / mass, with the mass of all ranks.

    Every rank passes the same terms in the same order; one without rows passes mass 0. A term
    whose total and mass are 0 on all ranks adds an exact 0. A total without mass raises a
    UserError on the CPU; elsewhere, where that would wait for the device, the loss becomes NaN.
    """
    return weighted_means(terms).sum()


def weighted_means(terms: Terms) -> Tensor:
    """The part of each term in the loss that `combine` returns: K terms -> (K,)."""
    mass = torch.stack([local_mass(term).detach() for term in terms.values()])
    if world_size() > 1:
        dist.all_reduce(mass)
    mass = _at_least(mass, terms)
    if mass.device.type == "cpu":
        _refuse_without_mass(terms, mass)
    mass = mass / world_size()  # DDP divides the gradient by world_size once more
    totals = torch.stack([term.total for term in terms.values()])
    weighted = torch.stack([term.weight * term.total for term in terms.values()])
    return weighted / divisor(totals, mass)


def mean_terms(terms: Terms) -> Mapping[str, Tensor]:
    """The mean of each term over all ranks, without its weight, for logging."""
    pairs = torch.stack([torch.stack((t.total.detach(), local_mass(t))) for t in terms.values()])
    if world_size() > 1:
        dist.all_reduce(pairs)
    totals, mass = pairs.unbind(1)
    values = totals / divisor(totals, _at_least(mass, terms))
    return dict(zip(terms, values, strict=True))


def local_mass(term: Term) -> Tensor:
    """What this rank adds to the mass of a term: -> (), in the dtype of its total."""
    mass = term.mass.to(term.total.dtype)
    return mass / world_size() if term.shared else mass


def _at_least(mass: Tensor, terms: Terms) -> Tensor:
    """Raise the masses of all ranks to the least mass of their terms: (K,) -> (K,)."""
    if not any(term.least for term in terms.values()):
        return mass
    pairs = zip(mass.unbind(), terms.values(), strict=True)
    return torch.stack([value.clamp(min=term.least) for value, term in pairs])


def _refuse_without_mass(terms: Terms, mass: Tensor) -> None:
    empty = mass == 0
    if not empty.any():  # the same on all ranks
        return
    totals = torch.stack([term.total.detach() for term in terms.values()])
    # Infinity and NaN are left to the check for nonfinite losses.
    sizes = totals.nan_to_num(0.0, 0.0, 0.0).abs() * empty
    if world_size() > 1:  # so that all ranks raise
        dist.all_reduce(sizes)
    for name, size in zip(terms, sizes.tolist(), strict=True):
        if size > 0:
            raise UserError(
                f"term {name!r} has a total of {size:g} but no mass; give it a mass or a least mass"
            )


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks in rank order: (N, ...) -> (M, ...).

    For losses that every rank computes from all rows. Backward needs no collective: each rank
    already has the gradient of its own rows. The factor that compensates the averaging of DDP is
    applied here and not to the loss, so that the gradient of parameters after the gather is right,
    too.
    """
    gathered: Tensor = _Gather.apply(x) if world_size() > 1 else x
    return gathered


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum over all ranks, whose gradient is summed over them, too: (...) -> (...)."""
    total: Tensor = _Sum.apply(x) if world_size() > 1 else x
    return total


def gather_objects(value: V) -> list[V]:
    """The values of all ranks, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_site(site: Site, labels: bool = True) -> Site:
    """The site with the rows of all ranks, without targets where a loss reads no `labels`.

    Those of a rank are None if none of its images has labels, which cannot be gathered.
    """
    site = site if labels else replace(site, target=None)
    optional = {
        name: gather(value)
        for name in ("target", "weight")
        if (value := getattr(site, name)) is not None
    }
    return replace(site, student=gather(site.student), teacher=gather(site.teacher), **optional)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters outside of DDP over all ranks, as DDP does."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # a rank without images takes part, too
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


def copy_buffers(module: nn.Module) -> None:
    """Copy all buffers, such as the statistics of batch norms, from the first rank to the others.

    DDP does so before each forward in training, so that after it those of the ranks differ.
    """
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def sync_equal_buffers(module: nn.Module) -> None:
    """Copy memories from the first rank once, before DDP would copy them at each forward.

    Ranks fill them alike: the buffers of modules with `equal_buffers`, which may be as large as all
    features of a data set.
    """
    names = []
    for path, part in module.named_modules():
        if getattr(part, "equal_buffers", False):
            for name, buffer in part.named_buffers(prefix=path):
                names.append(name)
                if world_size() > 1:
                    torch.distributed.broadcast(buffer, 0)
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def destroy_process_group() -> None:
    """Destroy the default process group, if there is one."""
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


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.forward(ctx, grad)


def on_first_rank(action: Callable[[], V]) -> V:
    """Run an action on the first rank only; its result, or its error, is that of all ranks."""
    if world_size() == 1:
        return action()
    outcome: list[Any] = [None, None]  # result and error
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:  # else the other ranks would wait for the broadcast
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    result: V = outcome[0]
    return result

"""Evaluation of a network; each sample counts once, however many ranks there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

from stillhouse.batches import Batch, Target
from stillhouse.distributed import gather, world_size
from stillhouse.engine.devices import Hardware
from stillhouse.engine.finite import check_outputs, has_finite_numbers
from stillhouse.tasks.base import Meter, Task, run_network
from stillhouse.types import Trace

T = TypeVar("T", bound=Target)


def evaluate(
    task: Task[T],
    network: Callable[..., Trace],
    batches: Iterable[Batch[T]],
    hardware: Hardware,
    name: str = "network",
) -> Mapping[str, float]:
    """The scores of a network, by the task's meter; each rank passes its own batches.

    Raises UserError, with the `name` of the network, for outputs that are not finite.
    """
    return measure(task, network, batches, hardware, name).summary()


@torch.no_grad()
def measure(
    task: Task[T],
    network: Callable[..., Trace],
    batches: Iterable[Batch[T]],
    hardware: Hardware,
    name: str = "network",
) -> Meter[Batch[T]]:
    """A meter that has seen the batches of all ranks.

    Raises UserError, with the `name` of the network, for outputs that are not finite.
    """
    meter, finite = task.meter(), True
    for batch in batches:
        with hardware.autocast():
            trace = run_network(task, network, batch)
        finite = has_finite_numbers(trace.out)
        if not finite:  # which meters need not expect
            break
        meter.update(trace, batch)
    check_outputs(finite, name)
    merge_ranks(meter, hardware.device)
    return meter


@runtime_checkable
class KnowsErrors(Protocol):
    """A meter that tells kinds of errors apart."""

    def errors(self) -> Mapping[str, float]:
        """What each kind of error costs, in points of a score, by kind."""
        ...


def errors_of(meter: Meter[Any]) -> dict[str, float]:
    """What each kind of error costs; empty for a meter that does not tell them apart."""
    return dict(meter.errors()) if isinstance(meter, KnowsErrors) else {}


@torch.no_grad()
def merge_ranks(meter: Meter[Any], device: torch.device) -> None:
    """Combine the meters of all ranks: sums are added, rows are concatenated."""
    if world_size() == 1:
        return
    state = {name: value.to(device) for name, value in sorted(meter.state().items())}
    meter.load(
        {
            n: concatenate_ranks(value) if n in meter.rows else sum_ranks(value)
            for n, value in state.items()
        }
    )


def sum_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks: (...) -> (...)."""
    value = value.clone()
    dist.all_reduce(value)
    return value


def concatenate_ranks(rows: Tensor) -> Tensor:
    """The rows of all ranks: (N, ...) -> (M, ...); a rank without rows may have another shape."""
    shape = torch.tensor(rows.shape, device=rows.device)
    dist.all_reduce(shape, dist.ReduceOp.MAX)
    return gather(rows if len(rows) else rows.new_zeros(0, *shape[1:].tolist()))

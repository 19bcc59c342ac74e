"""How good a network is, each sample counted once whatever the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stillhouse.batches import Batch, Target
from stillhouse.distributed import gather, world_size
from stillhouse.engine.devices import Hardware
from stillhouse.tasks.base import Meter, Task
from stillhouse.types import Trace

T = TypeVar("T", bound=Target)


@torch.no_grad()
def evaluate(
    task: Task[T],
    network: Callable[..., Trace],
    batches: Iterable[Batch[T]],
    hardware: Hardware,
) -> Mapping[str, float]:
    """The meter's summary of a network over batches, of which each rank brings its own."""
    meter = task.meter()
    for batch in batches:
        with hardware.autocast():
            trace = network(*task.inputs(batch))
        meter.update(trace, batch)
    merge(meter, hardware.device)
    return meter.summary()


@torch.no_grad()
def merge(meter: Meter[Any], device: torch.device) -> None:
    """Add up the sums of all ranks, and put their rows one after another."""
    if world_size() == 1:
        return
    state = {name: value.to(device) for name, value in sorted(meter.state().items())}
    meter.load(
        {n: concatenated(value) if n in meter.rows else summed(value) for n, value in state.items()}
    )


def summed(value: Tensor) -> Tensor:
    """The sum over all ranks: (...) -> (...)."""
    value = value.clone()
    dist.all_reduce(value)
    return value


def concatenated(rows: Tensor) -> Tensor:
    """The rows of all ranks, a rank without any not knowing their shape: (N, ...) -> (M, ...)."""
    shape = torch.tensor(rows.shape, device=rows.device)
    dist.all_reduce(shape, dist.ReduceOp.MAX)
    return gather(rows if len(rows) else rows.new_zeros(0, *shape[1:].tolist()))

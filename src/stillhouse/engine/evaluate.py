"""How good a network is, each sample counted once whatever the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist

from stillhouse.distributed import world_size
from stillhouse.engine.devices import Hardware
from stillhouse.tasks.base import Meter, Task
from stillhouse.types import Trace

B = TypeVar("B")


@torch.no_grad()
def evaluate(
    task: Task[B],
    network: Callable[..., Trace],
    batches: Iterable[B],
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


def merge(meter: Meter[B], device: torch.device) -> None:
    """Add up the sums of all ranks."""
    if world_size() == 1:
        return
    state = {name: value.to(device).clone() for name, value in sorted(meter.state().items())}
    for value in state.values():
        dist.all_reduce(value)
    meter.load(state)

"""Running a network as it trains without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stillhouse.models.dry_run import restored


@contextmanager
def untouched(module: nn.Module) -> Iterator[nn.Module]:
    """In train mode inside; modes, buffers and random states are put back on leaving."""
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    indices = sorted(index for index in devices if index is not None)
    with restored(module), torch.random.fork_rng(indices):
        module.train()
        yield module

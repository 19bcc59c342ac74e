"""Running a module in train mode without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stillhouse.models.dry_run import restored


@contextmanager
def temporary_train_mode(module: nn.Module) -> Iterator[nn.Module]:
    """Train mode inside; restores modes, buffers and random states on exit."""
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    indices = sorted(index for index in devices if index is not None)
    with restored(module), torch.random.fork_rng(indices):
        module.train()
        yield module

"""Running a network as it trains without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module) -> Iterator[nn.Module]:
    """In train mode inside; modes, buffers and random states are put back on leaving."""
    modes = [(part, part.training) for part in module.modules()]
    buffers = [
        (part, name, buffer, None if buffer is None else buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part._buffers.items()
    ]
    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    module.train()
    try:
        with torch.random.fork_rng(sorted(index for index in devices if index is not None)):
            yield module
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for part, name, buffer, before in buffers:
                part._buffers[name] = buffer  # a module may have put another in its place
                if buffer is not None and before is not None:
                    buffer.copy_(before)

"""Running a network once without changing its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def restored(model: nn.Module) -> Iterator[nn.Module]:
    """A context that restores the modes and buffers of all modules on exit."""
    # Each module has its own mode: a frozen BatchNorm in a training network must stay frozen.
    modes = [(part, part.training) for part in model.modules()]
    buffers = [
        (part, name, buffer, None if buffer is None else buffer.detach().clone())
        for part in model.modules()
        for name, buffer in part._buffers.items()
    ]
    try:
        yield model
    finally:
        for part, training in modes:
            part.training = training
        with torch.no_grad():
            for part, name, buffer, before in buffers:
                part._buffers[name] = buffer  # a module may have assigned another tensor
                if buffer is not None and before is not None:
                    buffer.copy_(before)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """A context in eval mode and without gradients that restores modes and buffers on exit."""
    with restored(model):
        model.eval()
        with torch.no_grad():
            yield model

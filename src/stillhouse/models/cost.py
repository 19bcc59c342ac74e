"""What a network costs: its size, its arithmetic, its time."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.models.dry import undisturbed


def parameters(model: nn.Module) -> int:
    """How many numbers the network has learned or will learn; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops(model: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward, two for each multiply-accumulate.

    Convolutions, matrix products and attention are counted; what is cheap beside them is not.
    """
    counter = FlopCounterMode(display=False)
    with undisturbed(model), counter:
        model(*inputs)
    return int(counter.get_total_flops())


def latency(model: nn.Module, *inputs: Tensor, repeats: int = 10, warmup: int = 3) -> float:
    """Median seconds of one forward in eval mode, on the device where network and inputs are."""
    with undisturbed(model):
        for _ in range(warmup):
            model(*inputs)
        return median(_timed(model, *inputs) for _ in range(max(1, repeats)))


def _timed(model: nn.Module, *inputs: Tensor) -> float:
    _wait(*inputs)
    start = perf_counter()
    model(*inputs)
    _wait(*inputs)
    return perf_counter() - start


def _wait(*inputs: Tensor) -> None:
    # A GPU answers before it has finished, so the clock must wait for it.
    if any(tensor.is_cuda for tensor in inputs):
        torch.cuda.synchronize()

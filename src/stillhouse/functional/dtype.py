"""The precision in which losses are computed."""

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 are kept: (...) -> (...)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which operations on `x` keep its dtype, under any autocast."""
    return torch.autocast(x.device.type, enabled=False)

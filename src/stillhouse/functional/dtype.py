"""In which precision a loss is computed."""

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """Half precision to single; single and double stay: (...) -> (...)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which operations on `x` keep its precision, whatever autocast is around."""
    return torch.autocast(x.device.type, enabled=False)

"""Random numbers that do not depend on how the images of a batch are divided among ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.methods.negatives import STRIDE, global_rows
from stillhouse.types import Clock


def step_generator(clock: Clock, seed: int, device: torch.device) -> torch.Generator:
    """A generator for one step, the same on all ranks and after a resume."""
    return torch.Generator(device).manual_seed(clock.step * STRIDE + seed)


def image_draws(
    shape: tuple[int, ...], number: int, weight: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Numbers in [0, 1) for each of this rank's images, of weights (N,): -> (N, *shape).

    Images of weight 0 do not change the numbers of others.
    """
    device = generator.device
    rows, total = global_rows(torch.arange(number, device=device), weight)
    return torch.rand((total, *shape), generator=generator, device=device)[rows]

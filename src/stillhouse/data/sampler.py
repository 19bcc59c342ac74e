"""The order of samples, and how ranks share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.data.random import derive_seed


@dataclass(frozen=True)
class BatchSampler:
    """The order of samples, and which rank gets which of them, in batches.

    In training every rank makes the same number of steps; in evaluation every sample comes once
    over all ranks, and none twice.

    With `repeats` a step of all ranks holds that many copies of each of its samples (Hoffer et al.,
    2020), and an epoch of as many steps as ever so many samples fewer.
    """

    samples: int
    batch: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    repeats: int = 1

    def steps(self) -> int:
        """Batches an epoch of this rank."""
        if self.shuffle:
            return self.samples // (self.batch * self.world)
        mine = len(range(self.rank, self.samples, self.world))
        return -(-mine // self.batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Indices of the batches `start` and on of one epoch: -> (N,)."""
        for keys, _ in self.numbered(epoch, start):
            yield keys

    def numbered(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with the number of each copy, from 0 to below `repeats`: -> (N,), (N,)."""
        order = torch.arange(self.samples)
        if self.shuffle:
            made = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            order = torch.randperm(self.samples, generator=made)
        mine = torch.arange(self.rank, self.samples, self.world)
        for step in range(start, self.steps()):
            places = mine[step * self.batch : (step + 1) * self.batch]
            # Dealt out, so that no copy stands beside another, which it would be mixed with.
            places = torch.cat([places[first :: self.repeats] for first in range(self.repeats)])
            yield order[places // self.repeats], places % self.repeats

"""The order of samples, and its division into batches and among ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.data.random import derive_seed


@dataclass(frozen=True)
class BatchSampler:
    """The batches of indices of one rank.

    In training (`shuffle`), all ranks have the same number of batches, and the rest of the samples
    is dropped. In evaluation, each sample is in exactly one batch of one rank.

    With `repeats`, a step of all ranks contains that many copies of each of its samples (Hoffer et
    al., 2020). The number of steps stays the same, so an epoch has fewer different samples.
    """

    samples: int
    batch: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    repeats: int = 1

    def steps(self) -> int:
        """The number of batches of this rank per epoch."""
        if self.shuffle:
            return self.samples // (self.batch * self.world)
        samples = len(range(self.rank, self.samples, self.world))
        return -(-samples // self.batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """The indices of each batch of an epoch, from the batch `start` on: -> (N,)."""
        for keys, _ in self.numbered(epoch, start):
            yield keys

    def numbered(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The indices with the number of each copy, 0 to `repeats` - 1: -> (N,), (N,)."""
        order = torch.arange(self.samples)
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, epoch))
            order = torch.randperm(self.samples, generator=generator)
        positions = torch.arange(self.rank, self.samples, self.world)
        for step in range(start, self.steps()):
            batch = positions[step * self.batch : (step + 1) * self.batch]
            # Copies are kept apart, because neighbours in a batch are mixed with each other.
            batch = torch.cat([batch[first :: self.repeats] for first in range(self.repeats)])
            yield order[batch // self.repeats], batch % self.repeats

"""The order of samples, and its division into batches and among ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stillhouse.data.random import derive_seed
from stillhouse.data.source import Pixels, Source, SourceSubset
from stillhouse.data.unlabelled import PartlyLabelled, WithoutLabels
from stillhouse.errors import UserError


@dataclass(frozen=True)
class BatchSampler:
    """The batches of indices of one rank.

    In training (`shuffle`), all ranks have the same number of batches, and the rest of the samples
    is dropped. In evaluation, each sample is in exactly one batch of one rank.

    With `repeats`, a step of all ranks contains that many copies of each of its samples (Hoffer et
    al., 2020). The number of steps stays the same, so an epoch has fewer different samples.

    With `groups`, all samples of a training batch are of one group. What is left of each group, and
    the batches that are too few for one more step of all ranks, are dropped; an epoch later they
    are others.
    """

    samples: int
    batch: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    repeats: int = 1
    groups: Tensor | None = field(default=None, compare=False, repr=False)  # (N,) int64

    def __post_init__(self) -> None:
        if self.groups is not None and (self.repeats > 1 or not self.shuffle):
            raise ValueError("groups need shuffle, and repeats of 1")

    def steps(self) -> int:
        """The number of batches of this rank per epoch."""
        if self.groups is not None:
            return int((self.groups.bincount() // self.batch).sum()) // self.world
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
            if self.groups is not None:
                order = self._grouped(order, self.groups, generator)
        positions = torch.arange(self.rank, self.samples, self.world)
        for step in range(start, self.steps()):
            batch = positions[step * self.batch : (step + 1) * self.batch]
            # Copies are kept apart, because neighbours in a batch are mixed with each other.
            batch = torch.cat([batch[first :: self.repeats] for first in range(self.repeats)])
            yield order[batch // self.repeats], batch % self.repeats

    def _grouped(self, order: Tensor, groups: Tensor, generator: torch.Generator) -> Tensor:
        """The order such that each batch of a rank is of one group: (N,) -> (M,), M <= N."""
        parts = [order[groups[order] == group] for group in groups.unique()]
        whole = [part[: len(part) // self.batch * self.batch] for part in parts]
        batches = torch.cat(whole).view(-1, self.batch)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        # the ranks take turns: rank r has the samples r, r + world, ... of a step
        steps = batches[: self.steps() * self.world].view(-1, self.world, self.batch)
        return steps.mT.flatten()


def aspect_groups(source: Source) -> Tensor:
    """1 for images wider than high, else 0, by the `shapes` of a source: -> (N,) int64.

    Raises UserError for a source without them.
    """
    height, width = shapes_of(source).unbind(1)
    return (width > height).long()


def shapes_of(source: Source) -> Tensor:
    """The height and width of each image as read: -> (N, 2); raises UserError if unknown."""
    if isinstance(source, SourceSubset):
        return shapes_of(source.whole)[source.indices]
    if isinstance(source, PartlyLabelled):
        return torch.cat([shapes_of(source.labelled), shapes_of(source.unlabelled)])
    if isinstance(source, WithoutLabels):
        return shapes_of(source.images)
    if isinstance(source, Pixels):
        return torch.tensor(source.images.shape[-2:]).expand(len(source), 2)
    shapes = getattr(source, "shapes", None)
    if not isinstance(shapes, Tensor):
        raise UserError(
            f"data.group_by_aspect needs the sizes of images, which {source.name} does not know "
            "without reading them; leave data.group_by_aspect out"
        )
    return shapes

"""Batches of a source: an order from the seed and the epoch, entered anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.batches import Labelled
from stillhouse.data.random import mix
from stillhouse.data.source import Pixels, Source
from stillhouse.data.transforms import (
    Single,
    Transform,
    all_batched,
    is_random,
    normalise,
    transform_batch,
)
from stillhouse.errors import UserError


@dataclass(frozen=True)
class Plan:
    """Which samples come in which order, to which rank, in batches of which size.

    In training every rank makes the same number of steps; in evaluation every sample comes once
    over all ranks, and none twice.
    """

    samples: int
    batch: int
    shuffle: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1

    def steps(self) -> int:
        """Batches an epoch of this rank."""
        if self.shuffle:
            return self.samples // (self.batch * self.world)
        mine = len(range(self.rank, self.samples, self.world))
        return -(-mine // self.batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        """Indices of the batches `start` and on of one epoch: -> (N,)."""
        order = torch.arange(self.samples)
        if self.shuffle:
            made = torch.Generator().manual_seed(mix(self.seed, epoch))
            order = torch.randperm(self.samples, generator=made)
        mine = order[self.rank :: self.world]
        for step in range(start, self.steps()):
            yield mine[step * self.batch : (step + 1) * self.batch]


class Loader:
    """Normalised batches of a source; the same epoch and step always give the same batch.

    `views` of an image come in turn, an epoch each. `draws` is the seed of what is random in them,
    where that is not the seed of the order.

    Sources in memory whose transforms have a tensor form are served batch by batch, on the device;
    all others image by image, by `workers` processes.
    """

    def __init__(
        self,
        source: Source,
        plan: Plan,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        transforms: Sequence[Transform] = (),
        views: int | None = None,
        draws: int | None = None,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        # in evaluation a rank may have nothing to measure, as long as another has
        if plan.steps() == 0 and (plan.shuffle or not plan.samples):
            raise UserError(
                f"{source.name} has {len(source)} samples, too few for one batch of {plan.batch} "
                f"on {plan.world} ranks; say a smaller data.batch"
            )
        if views is not None and views < 1:
            raise UserError(f"data.views must be at least 1, and is {views}; leave it out for any")
        self.source, self.plan = source, plan
        self.transforms = tuple(transforms)
        self.seed = plan.seed if draws is None else draws
        self.views = views if is_random(transforms) else 1
        self.workers = workers
        self.device = device or torch.device("cpu")
        self.mean = torch.tensor(tuple(mean), device=self.device)
        self.std = torch.tensor(tuple(std), device=self.device)
        self._pixels: tuple[Tensor, Tensor] | None = None
        if isinstance(source, Pixels) and all_batched(transforms):
            self._pixels = source.images.to(self.device), source.labels.to(self.device)

    def __len__(self) -> int:
        return self.plan.steps()

    def epoch(self, index: int, start: int = 0) -> Iterator[Labelled]:
        """Batches `start` and on of one epoch."""
        view = index if self.views is None else index % self.views
        made = self._from_memory if self._pixels else self._one_by_one
        yield from made(index, start, view)

    def _from_memory(self, index: int, start: int, view: int) -> Iterator[Labelled]:
        assert self._pixels is not None
        images, labels = self._pixels
        for keys in self.plan.batches(index, start):
            keys = keys.to(self.device, non_blocking=True)
            views = torch.full_like(keys, view)
            bytes_ = transform_batch(images[keys], self.transforms, self.seed, keys, views)
            yield Labelled(self._finish(bytes_), labels[keys], keys, views)

    def _one_by_one(self, index: int, start: int, view: int) -> Iterator[Labelled]:
        loader = torch.utils.data.DataLoader(
            _Batches(self.source, Single(self.transforms, self.seed), view),
            batch_size=None,
            sampler=[keys.tolist() for keys in self.plan.batches(index, start)],
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            # Its own, or entering an epoch would take a number from those of the networks.
            generator=torch.Generator().manual_seed(mix(self.seed, index)),
        )
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels, keys = (x.to(self.device, non_blocking=True) for x in batch)
            yield Labelled(self._finish(images), labels, keys, torch.full_like(keys, view))

    def _finish(self, images: Tensor) -> Tensor:
        if images.shape[1] != len(self.mean):
            raise UserError(
                f"{self.source.name} has {images.shape[1]} channels, and data.mean has "
                f"{len(self.mean)} numbers; give as many"
            )
        return normalise(images, self.mean, self.std)


_Batch = tuple[Tensor, Tensor, Tensor]


class _Batches(torch.utils.data.Dataset[_Batch | UserError]):
    def __init__(self, source: Source, transform: Single, view: int) -> None:
        self.source, self.transform, self.view = source, transform, view

    def __getitem__(self, keys: list[int]) -> _Batch | UserError:
        try:
            return _collate([self._one(key) for key in keys])
        except UserError as error:
            return error  # raised in a worker, it would come with a traceback in its sentence

    def _one(self, key: int) -> tuple[Tensor, int, int]:
        sample = self.source[key]
        return self.transform(sample.image, key, self.view), sample.label, key


def _collate(samples: list[tuple[Tensor, int, int]]) -> _Batch:
    images, labels, keys = zip(*samples, strict=True)
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        first, second = sorted(shapes)[:2]
        raise UserError(
            f"images of one batch have different shapes ({first} and {second}); "
            "add a transform that makes them alike, such as resize and center_crop"
        )
    return torch.stack(images), torch.tensor(labels), torch.tensor(keys)

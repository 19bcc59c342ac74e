"""Batches of a source: an order from the seed and the epoch, entered anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.batches import Labelled
from stillhouse.data import fetch as singly
from stillhouse.data.mixing import Mix, mix_batch
from stillhouse.data.random import mix
from stillhouse.data.sampler import Plan
from stillhouse.data.source import Pixels, Source
from stillhouse.data.transforms import (
    Chain,
    Transform,
    all_batched,
    is_random,
    normalise,
    transform_batch,
)
from stillhouse.errors import UserError

__all__ = ["Loader", "Plan"]

STRONG = 1  # what tells the draws of the strong view from those of the first


@dataclass(frozen=True)
class Look:
    """How a sample is shown, how many different views of it there are, and what they follow."""

    transforms: tuple[Transform, ...]
    views: int | None  # None: endless
    seed: int


class Loader:
    """Normalised batches of a source; the same epoch and step always give the same batch.

    `views` of an image come in turn, an epoch each. `draws` is the seed of what is random in them,
    where that is not the seed of the order. With `strong` each batch carries a second view of its
    samples, changed by these transforms. With `mixing` its images are mixed with one another.

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
        strong: Sequence[Transform] | None = None,
        mixing: Mix | None = None,
        views: int | None = None,
        draws: int | None = None,
        workers: int = 0,
        device: torch.device | None = None,
    ) -> None:
        check(source, plan, views)
        if mixing and strong is not None:
            raise UserError(
                "data.mix is for one view of each image, and the method asks for two; "
                "leave data.mix out"
            )
        self.source, self.plan, self.mixing = source, plan, mixing
        seed = plan.seed if draws is None else draws
        self.looks = [look_of(transforms, views, seed)]
        if strong is not None:
            self.looks.append(look_of(strong, views, mix(seed, STRONG)))
        self.workers = workers
        self.device = device or torch.device("cpu")
        self.mean = torch.tensor(tuple(mean), device=self.device)
        self.std = torch.tensor(tuple(std), device=self.device)
        self._pixels: tuple[Tensor, Tensor] | None = None
        if isinstance(source, Pixels) and all(all_batched(look.transforms) for look in self.looks):
            self._pixels = source.images.to(self.device), source.labels.to(self.device)

    def __len__(self) -> int:
        return self.plan.steps()

    def epoch(self, index: int, start: int = 0) -> Iterator[Labelled]:
        """Batches `start` and on of one epoch."""
        made = self._from_memory if self._pixels else self._one_by_one
        for step, batch in enumerate(made(index, start), start):
            yield self._mixed(batch, index, step) if self.mixing else batch

    def _turns(self, index: int, start: int) -> Iterator[Tensor]:
        """For each batch a row of keys, and one of view numbers for each look: -> (V + 1, N)."""
        for keys, copies in self.plan.turns(index, start):
            turn = index * self.plan.repeats + copies
            views = [turn if look.views is None else turn % look.views for look in self.looks]
            yield torch.stack([keys, *views])

    def _from_memory(self, index: int, start: int) -> Iterator[Labelled]:
        assert self._pixels is not None
        images, labels = self._pixels
        for turn in self._turns(index, start):
            keys, *views = turn.to(self.device, non_blocking=True)
            shown = [
                transform_batch(images[keys], look.transforms, look.seed, keys, numbers)
                for look, numbers in zip(self.looks, views, strict=True)
            ]
            yield self._labelled(labels[keys], keys, views[0], *shown)

    def _one_by_one(self, index: int, start: int) -> Iterator[Labelled]:
        batches = singly.read(
            self.source,
            [Chain(look.transforms, look.seed) for look in self.looks],
            self._turns(index, start),
            workers=self.workers,
            pinned=self.device.type == "cuda",
            seed=mix(self.plan.seed, index),
        )
        for batch in batches:
            labels, turn, *shown = (part.to(self.device, non_blocking=True) for part in batch)
            yield self._labelled(labels, turn[0], turn[1], *shown)

    def _labelled(self, labels: Tensor, keys: Tensor, views: Tensor, *shown: Tensor) -> Labelled:
        image, *strong = (self._finish(bytes_) for bytes_ in shown)
        if strong and strong[0].shape != image.shape:
            first, second = (" x ".join(map(str, x.shape[1:])) for x in (image, strong[0]))
            raise UserError(
                f"data.transforms makes images of {first}, and data.strong of {second}; "
                "let both end in the same size"
            )
        return Labelled(image, labels, keys, views, *strong)

    def _finish(self, images: Tensor) -> Tensor:
        if images.shape[1] != len(self.mean):
            raise UserError(
                f"{self.source.name} has {images.shape[1]} channels, and data.mean has "
                f"{len(self.mean)} numbers; give as many"
            )
        return normalise(images, self.mean, self.std)

    def _mixed(self, batch: Labelled, epoch: int, step: int) -> Labelled:
        assert self.mixing is not None
        seed = mix(self.plan.seed, epoch, step, self.plan.rank)
        classes = len(self.source.classes)
        image, label = mix_batch(batch.image, batch.label, classes, self.mixing, seed)
        return batch._replace(image=image, label=label)


def look_of(transforms: Sequence[Transform], views: int | None, seed: int) -> Look:
    """A look of some transforms, which has one view where nothing is random."""
    return Look(tuple(transforms), views if is_random(transforms) else 1, seed)


def check(source: Source, plan: Plan, views: int | None) -> None:
    """Refuse what gives no batch, or no view."""
    # in evaluation a rank may have nothing to measure, as long as another has
    if plan.steps() == 0 and (plan.shuffle or not plan.samples):
        raise UserError(
            f"{source.name} has {len(source)} samples, too few for one batch of {plan.batch} "
            f"on {plan.world} ranks; say a smaller data.batch"
        )
    if views is not None and views < 1:
        raise UserError(f"data.views must be at least 1, and is {views}; leave it out for any")

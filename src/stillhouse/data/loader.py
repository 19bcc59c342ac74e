"""The loader: batches of a source, in an order given by seed and epoch, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Batch, Objects, Target, select_target
from stillhouse.data.fetch import fetch
from stillhouse.data.mixing import Mix, mix_batch
from stillhouse.data.mosaic import Mosaic, MosaicSamples
from stillhouse.data.padding import clear_padding
from stillhouse.data.positions import check_positions
from stillhouse.data.random import derive_seed
from stillhouse.data.sampler import BatchSampler
from stillhouse.data.source import Pixels, Source
from stillhouse.data.targets import is_spatial
from stillhouse.data.transforms import (
    Chain,
    Transform,
    all_batched,
    is_random,
    normalise,
    transform_batch,
)
from stillhouse.errors import UserError

__all__ = ["BatchSampler", "Loader"]

# with the seed of the first view, give the seed of the second, and of mosaics
STRONG_SEED, MOSAIC_SEED = 1, 2


@dataclass(frozen=True)
class ViewTransforms:
    """The transforms of one view, with their seed and the number of different augmentations."""

    transforms: tuple[Transform, ...]
    count: int | None  # None: a new augmentation in each epoch
    seed: int


class Loader:
    """Normalised batches of a source; the same epoch and step always give the same batch.

    `views` is the number of augmentations of an image, which epochs use in turn; None is a new one
    in each epoch. `draws` is the seed of augmentations, by default the sampler's. With `strong`,
    each batch has a second view with these transforms. With `mixing`, images of a batch are mixed.
    Images with boxes or masks are padded to a multiple of `pad`, and with `mosaic` joined by four.

    For sources in memory whose transforms all have a batched form, batches are made on the device;
    all others are loaded sample by sample, by `workers` processes.
    """

    def __init__(
        self,
        source: Source,
        sampler: BatchSampler,
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
        pad: int = 1,
        mosaic: Mosaic | None = None,
    ) -> None:
        check_sampling(source, sampler, views)
        given = [transforms] if strong is None else [transforms, strong]
        check_positions(source, given, mixing, pad, mosaic)
        if mixing and strong is not None:
            raise UserError(
                "data.mix mixes one view of each image, but the method needs two; leave data.mix "
                "out"
            )
        self.source, self.sampler, self.mixing = source, sampler, mixing
        if mixing and isinstance(source, Pixels):
            check_labelled(source.targets)
        seed = sampler.seed if draws is None else draws
        self.views = [make_view(transforms, views, seed, mosaic is not None)]
        if strong is not None:
            self.views.append(make_view(strong, views, derive_seed(seed, STRONG_SEED)))
        self.mosaics = (
            MosaicSamples(source, mosaic, derive_seed(seed, MOSAIC_SEED)) if mosaic else None
        )
        self.workers, self.pad = workers, pad
        self.device = device or torch.device("cpu")
        self.mean = torch.tensor(tuple(mean), device=self.device)
        self.std = torch.tensor(tuple(std), device=self.device)
        self._memory: tuple[Tensor, Target] | None = None
        loaded = pad > 1 or mosaic is not None
        if isinstance(source, Pixels) and not loaded and in_memory(source, self.views):
            self._memory = source.images.to(self.device), to_device(source.targets, self.device)

    def __len__(self) -> int:
        return self.sampler.steps()

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch[Any]]:
        """The batches of an epoch, from the batch `start` on."""
        batches = self._from_memory if self._memory else self._fetched
        for step, batch in enumerate(batches(index, start), start):
            yield self._mixed(batch, index, step) if self.mixing else batch

    def _indices(self, epoch: int, start: int) -> Iterator[Tensor]:
        """For each batch, keys and the view numbers of each view: -> (V + 1, N)."""
        for keys, copies in self.sampler.numbered(epoch, start):
            turn = epoch * self.sampler.repeats + copies
            views = [turn if view.count is None else turn % view.count for view in self.views]
            yield torch.stack([keys, *views])

    def _from_memory(self, epoch: int, start: int) -> Iterator[Batch[Any]]:
        assert self._memory is not None
        images, targets = self._memory
        for rows in self._indices(epoch, start):
            keys, *views = rows.to(self.device, non_blocking=True)
            transformed = [
                transform_batch(images[keys], view.transforms, view.seed, keys, numbers)
                for view, numbers in zip(self.views, views, strict=True)
            ]
            yield self._batch(select_target(targets, keys), keys, views[0], transformed)

    def _fetched(self, epoch: int, start: int) -> Iterator[Batch[Any]]:
        batches = fetch(
            self.source,
            [Chain(view.transforms, view.seed) for view in self.views],
            self._indices(epoch, start),
            workers=self.workers,
            pinned=self.device.type == "cuda",
            seed=derive_seed(self.sampler.seed, epoch),
            pad=self.pad,
            mosaics=self.mosaics,
        )
        for fetched in batches:
            if self.mixing:
                check_labelled(fetched.target)
            target, rows, images = (to_device(part, self.device) for part in fetched[:3])
            batch = self._batch(target, rows[0], rows[1], images)
            if fetched.sizes is not None:
                batch = self._padded(batch, fetched.sizes, fetched.originals)
            yield batch

    def _padded(self, batch: Batch[Any], sizes: Tensor, originals: Tensor | None) -> Batch[Any]:
        clear_padding(batch.images, sizes)
        sizes, originals = (to_device(part, self.device) for part in (sizes, originals))
        return replace(batch, sizes=sizes, originals=originals)

    def _batch(
        self, target: Any, keys: Tensor, views: Tensor, images: Sequence[Tensor]
    ) -> Batch[Any]:
        first, *strong = (self._normalised(part) for part in images)
        if strong and strong[0].shape != first.shape:
            one, two = (" x ".join(map(str, x.shape[1:])) for x in (first, strong[0]))
            raise UserError(
                f"data.transforms gives images of {one}, but data.strong of {two}; "
                "set transforms that end in the same size"
            )
        return Batch(first, target, keys, views, strong[0] if strong else None)

    def _normalised(self, images: Tensor) -> Tensor:
        if images.shape[1] != len(self.mean):
            raise UserError(
                f"{self.source.name} has {images.shape[1]} channels, but data.mean has "
                f"{len(self.mean)} numbers; set data.mean and data.std to one number per channel"
            )
        return normalise(images, self.mean, self.std)

    def _mixed(self, batch: Batch[Any], epoch: int, step: int) -> Batch[Any]:
        assert self.mixing is not None
        seed = derive_seed(self.sampler.seed, epoch, step, self.sampler.rank)
        return mix_batch(batch, len(self.source.classes), self.mixing, seed)


def in_memory(source: Pixels, views: Sequence[ViewTransforms]) -> bool:
    """Whether batches of a source can be made without a loop over samples.

    They can if all transforms have a batched form and none is geometric for boxes or masks.
    """
    if not all(all_batched(view.transforms) for view in views):
        return False
    return not (
        is_spatial(source.targets) and any(t.geometric for view in views for t in view.transforms)
    )


def make_view(
    transforms: Sequence[Transform], count: int | None, seed: int, random: bool = False
) -> ViewTransforms:
    """The transforms of a view; the number of augmentations is 1 if nothing is `random`."""
    random = random or is_random(transforms)
    return ViewTransforms(tuple(transforms), count if random else 1, seed)


def to_device(part: Any, device: torch.device) -> Any:
    """Move a tensor, objects or a list of tensors to a device; None is returned unchanged."""
    if isinstance(part, Tensor | Objects):
        return part.to(device, non_blocking=True)
    return [to_device(inner, device) for inner in part] if isinstance(part, list) else part


def check_labelled(target: Target) -> None:
    """Raise UserError if some of the images whose labels are mixed have none."""
    if isinstance(target, Tensor) and bool((target < 0).any()):
        raise UserError(
            "data.mix mixes the labels of images, but some of the images have none; leave data.mix "
            "out"
        )


def check_sampling(source: Source, sampler: BatchSampler, views: int | None) -> None:
    """Raise UserError for an epoch without a batch, or fewer than one view."""
    if sampler.groups is not None:
        check_groups(source, sampler, sampler.groups)
    # in evaluation, a rank may have no samples as long as another has some
    if sampler.steps() == 0 and (sampler.shuffle or not sampler.samples):
        raise UserError(
            f"{source.name} has {len(source)} samples, too few for one batch of {sampler.batch} "
            f"on {sampler.world} ranks; set a smaller data.batch"
        )
    if views is not None and views < 1:
        raise UserError(f"data.views must be at least 1, got {views}; leave it out for no limit")


def check_groups(source: Source, sampler: BatchSampler, groups: Tensor) -> None:
    """Raise UserError for a group that is too small for a batch, so that it would never be used."""
    counts = groups.bincount()
    small = counts[counts > 0].min() if len(counts) else 0
    if small < sampler.batch:
        raise UserError(
            f"{source.name}: data.group_by_aspect makes a group of {int(small)}, which is smaller "
            f"than data.batch, {sampler.batch}; set a smaller data.batch, or leave "
            "data.group_by_aspect out"
        )

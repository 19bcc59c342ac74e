"""Builds sources and loaders from the data section of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from stillhouse.build.splits import Splits, SplitSources, choose_splits, read_splits
from stillhouse.data.catalogue import IMAGENET, entry
from stillhouse.data.images import limit_pixels
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.positions import SEARCHED, has_positions
from stillhouse.data.record import ScoreSplit
from stillhouse.data.sampler import aspect_groups
from stillhouse.data.source import Source, notes_of, targets_of
from stillhouse.data.transforms import Cutout, RandAugment, Transform, is_random
from stillhouse.data.unlabelled import add_unlabelled, without_labels
from stillhouse.distributed import rank, world_size
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data, Recipe
from stillhouse.recipes.splits import UnlabelledSpec
from stillhouse.tasks.base import Facts, Task

UNLABELLED = UnlabelledSpec(name="given")  # what sources that are given have in a recipe
VIEW_SEED = 0  # the seed of numbered views, the same for all runs and seeds


@dataclass(frozen=True)
class Sources:
    """The splits of a data set, and the properties of its images.

    `train` has no labels where no training image has any.
    """

    train: Source
    val: Source
    test: Source | None  # None: there is none, and scores are those of val
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height, width, after the transforms of evaluation
    channels: int
    remarks: tuple[str, ...] = ()  # on the choice of the splits
    unlabelled: Source | None = None  # training images beside those of `train`
    alone: bool = False  # whether no training image has labels

    @cached_property
    def training(self) -> Source:
        """The images that are trained on: those of `train`, then those without labels."""
        more = self.unlabelled
        return self.train if more is None else add_unlabelled(self.train, more)

    @property
    def by_name(self) -> dict[str, Source]:
        """The splits that there are: train, val and perhaps test."""
        splits = {"train": self.train, "val": self.val}
        return splits if self.test is None else {**splits, "test": self.test}

    @property
    def parts(self) -> dict[str, Source]:
        """The splits, and the images without labels if there are any, by name."""
        more = self.unlabelled
        return self.by_name if more is None else {**self.by_name, "unlabelled": more}

    @property
    def score_split(self) -> ScoreSplit:
        """The split that scores are measured on."""
        return "validation" if self.test is None else "test"

    @property
    def measured(self) -> Source:
        """The images that scores are measured on."""
        return self.val if self.test is None else self.test

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their indices."""
        return tuple(self.train.classes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the splits and on samples that were left out of them, a sentence each."""
        notes = [note for source in self.parts.values() for note in notes_of(source)]
        return tuple(dict.fromkeys((*self.remarks, *unlabelled_notes(self), *notes)))


def unlabelled_notes(sources: Sources) -> Iterator[str]:
    """How many training images have no labels."""
    if sources.alone:
        yield f"all {len(sources.train):,} training images are without labels"
    elif sources.unlabelled is not None:
        yield (
            f"training uses {len(sources.train):,} images with labels and "
            f"{len(sources.unlabelled):,} without"
        )


def open_sources(data: Data, given: SplitSources | None = None) -> Sources:
    """The splits of the recipe, or those given, with what is missing held out of train.

    Raises UserError for splits that do not fit.
    """
    limit_pixels(data.max_pixels)
    if given is None:
        known = entry(data.name)
        return describe_splits(
            data, read_splits(data), data.mean or known.mean, data.std or known.std
        )
    mean, std = IMAGENET
    return describe_splits(data, choose_splits(data, given), data.mean or mean, data.std or std)


def describe_splits(
    data: Data,
    splits: Splits,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Sources:
    """The splits with the size and channels of their first image."""
    labelled, val, test, remarks, more = splits
    if more is not None:
        more = without_labels(more, tuple(val.classes), bool(has_positions(val, SEARCHED)))
    train = more if labelled is None else labelled
    assert train is not None
    for name, source in (("val", val), ("test", test)):
        if source is not None and tuple(source.classes) != tuple(train.classes):
            raise UserError(
                f"{data.name}: the {len(train.classes)} classes of train differ from the "
                f"{len(source.classes)} of {name}; give all splits the same classes"
            )
    sampler = BatchSampler(len(val), 1)
    first = Loader(val, sampler, mean, std, transforms=data.evaluation, pad=data.pad)
    batch = next(first.epoch(0))
    channels, *size = batch.images.shape[1:]
    if more is not None and (found := len(more[0].image)) != channels:
        raise UserError(
            f"data.unlabelled has images of {found} channels, but those of {data.name} have "
            f"{channels}; give both the same"
        )
    shape, alone = (size[0], size[1]), labelled is None
    beside = None if alone else more
    return Sources(train, val, test, mean, std, shape, channels, remarks, beside, alone)


TARGET_SAMPLES = 1000  # samples whose targets are read where a source has no `targets`


def make_facts(data: Data, sources: Sources) -> Facts:
    """What a task is built from: the classes, and targets of the validation split."""
    return Facts(data.name, sources.classes, targets_of(sources.val, TARGET_SAMPLES))


def with_fingerprints(data: Data, given: SplitSources, task: Task[Any] | None = None) -> Data:
    """The data section with the fingerprints of given sources, so that they change its hash."""
    splits: dict[str, Any] = {
        name: replace(spec, options={"fingerprint": source.fingerprint})
        for name, source in given.items()
        for spec in (getattr(data, name) or UNLABELLED,)
    }
    options = data.options if task is None else {**data.options, "task": repr(task)}
    return replace(data, options=options, **splits)


def make_loader(
    source: Source, data: Data, sources: Sources, device: torch.device, workers: int = 0
) -> Loader:
    """Batches of a split in its own order, each sample once over all ranks."""
    batch = evaluation_batch(data, source)
    sampler = BatchSampler(len(source), batch, rank=rank(), world=world_size())
    return Loader(
        source,
        sampler,
        sources.mean,
        sources.std,
        transforms=data.evaluation,
        workers=workers,
        device=device,
        pad=data.pad,
    )


def evaluation_batch(data: Data, source: Source) -> int:
    """The number of images per batch where the batch does not change the result."""
    if data.evaluation_batch is not None:
        return data.evaluation_batch
    return data.batch if has_positions(source, SEARCHED) else max(data.batch, 64)


def make_training_loader(
    recipe: Recipe, sources: Sources, device: torch.device, views: int = 1
) -> Loader:
    """Shuffled batches of train, the same number on each rank; `views` 2 adds the strong view."""
    data = recipe.data
    source = sources.training
    count, ranks = len(source), (rank(), world_size())
    groups = aspect_groups(source) if data.group_by_aspect else None
    sampler = BatchSampler(count, data.batch, True, recipe.seed, *ranks, data.repeats, groups)
    return Loader(
        source,
        sampler,
        sources.mean,
        sources.std,
        transforms=data.transforms,
        strong=strong_transforms(data) if views > 1 else None,
        mixing=data.mix,
        views=data.views,
        draws=None if data.views is None else VIEW_SEED,
        workers=recipe.engine.workers,
        device=device,
        pad=data.pad,
        mosaic=data.mosaic,
    )


def strong_transforms(data: Data) -> tuple[Transform, ...]:
    """The transforms of the second view; by default those of Jin et al., 2023."""
    return data.strong or (*data.transforms, RandAugment(ops=2, uniform=True), Cutout(0.5))


def data_is_finite(data: Data) -> bool:
    """Whether views of an image are repeated, so that teacher outputs for them can be cached."""
    random = is_random(data.transforms) or data.mosaic is not None
    return data.mix is None and (bool(data.views) or not random)


def make_filling_loader(
    data: Data, sources: Sources, device: torch.device, workers: int = 0
) -> Loader:
    """The training images in their order, all of them on each rank, to fill a store."""
    source = sources.training
    return Loader(
        source,
        BatchSampler(len(source), evaluation_batch(data, source)),
        sources.mean,
        sources.std,
        transforms=data.transforms,
        views=data.views,
        draws=VIEW_SEED,
        workers=workers,
        device=device,
        pad=data.pad,
        mosaic=data.mosaic,
    )

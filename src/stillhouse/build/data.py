"""From what a recipe says of data to sources and loaders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from stillhouse.data.catalogue import IMAGENET, entry, open_source
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.source import Source, notes_of, split, targets_of
from stillhouse.data.targets import collate
from stillhouse.data.transforms import Cutout, RandAugment, Transform, is_random
from stillhouse.distributed import rank, world_size
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data, Recipe, SplitSpec
from stillhouse.tasks.base import Facts, Task

VIEWS = 0  # the seed of numbered views, which all runs share, whatever their own seed


@dataclass(frozen=True)
class Sources:
    """The three splits of a data set, and how its images come."""

    train: Source
    val: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height, width, after the transforms of evaluation
    channels: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.train.classes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the splits, a sentence each."""
        found = (notes_of(source) for source in (self.train, self.val, self.test))
        return tuple(dict.fromkeys(note for notes in found for note in notes))


SplitSources = Mapping[str, Source]


def open_sources(data: Data, given: SplitSources | None = None) -> Sources:
    """The splits that the recipe names, or those given; val may be held out of train."""
    if given is None:
        train, val = open_training(data)
        test = open_test(data) or val
        known = entry(data.name)
        return describe_splits(
            data, (train, val, test), data.mean or known.mean, data.std or known.std
        )
    if "train" not in given or not (data.holdout or "val" in given):
        raise UserError("splits need train, and val unless data.holdout says how many to hold out")
    train = given["train"]
    train, val = split(train, data.holdout) if data.holdout else (train, given["val"])
    found = (train, val, given.get("test", val))
    return describe_splits(data, found, data.mean or IMAGENET[0], data.std or IMAGENET[1])


def describe_splits(
    data: Data,
    splits: tuple[Source, Source, Source],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Sources:
    """The splits with what a first image of theirs shows."""
    train, val, test = splits
    for name, source in (("val", val), ("test", test)):
        if tuple(source.classes) != tuple(train.classes):
            raise UserError(
                f"{data.name}: train has {len(train.classes)} classes and {name} "
                f"{len(source.classes)}, and they differ; give all splits the same classes"
            )
    sampler = BatchSampler(len(val), 1)
    batch = next(Loader(val, sampler, mean, std, transforms=data.evaluation).epoch(0))
    channels, *size = batch.images.shape[1:]
    return Sources(train, val, test, mean, std, (size[0], size[1]), channels)


FIRST = 1000  # samples whose targets are read where a source does not know them all


def facts_of(data: Data, sources: Sources) -> Facts:
    """What a task is built from: the classes, and targets of the validation split."""
    source = sources.val
    if getattr(source, "targets", None) is not None:
        targets = targets_of(source)
    else:
        targets = collate([source[i].target for i in range(min(len(source), FIRST))])
    return Facts(data.name, sources.classes, targets)


def with_fingerprints(data: Data, given: SplitSources, task: Task[Any] | None = None) -> Data:
    """The data section with the fingerprints of sources that it cannot open, for its hash."""
    splits = {
        name: replace(getattr(data, name), options={"fingerprint": source.fingerprint})
        for name, source in given.items()
    }
    options = data.options if task is None else {**data.options, "task": repr(task)}
    return replace(data, options=options, **splits)


def open_training(data: Data) -> tuple[Source, Source]:
    """Train and val, the second out of the first where samples are held out."""
    train = open_split(data, "train")
    if not data.holdout:
        return train, open_split(data, "val")
    return split(train, data.holdout)


def open_test(data: Data) -> Source | None:
    """The test split; None where it is one of files that may be left out, and is."""
    below = entry(data.name).test
    if below and data.path and not (data.path.expanduser() / below).exists():
        return None
    return open_split(data, "test")


def open_split(data: Data, name: str) -> Source:
    """One split by name."""
    wanted: SplitSpec = getattr(data, name)
    options = {**data.options, **wanted.options}
    options |= {k: v for k in ("count", "seed") if (v := getattr(wanted, k)) is not None}
    return open_source(data.name, data.path, name, **options)


def make_loader(
    source: Source, data: Data, sources: Sources, device: torch.device, workers: int = 0
) -> Loader:
    """Batches of a split in its own order, each sample once over all ranks."""
    batch = max(data.batch, 64)  # small batches are for learning, not for measuring
    sampler = BatchSampler(len(source), batch, rank=rank(), world=world_size())
    return Loader(
        source,
        sampler,
        sources.mean,
        sources.std,
        transforms=data.evaluation,
        workers=workers,
        device=device,
    )


def make_training_loader(
    recipe: Recipe, sources: Sources, device: torch.device, views: int = 1
) -> Loader:
    """Shuffled batches of train, as many on each rank; with two `views` the strong one, too."""
    data = recipe.data
    count, ranks = len(sources.train), (rank(), world_size())
    sampler = BatchSampler(count, data.batch, True, recipe.seed, *ranks, data.repeats)
    return Loader(
        sources.train,
        sampler,
        sources.mean,
        sources.std,
        transforms=data.transforms,
        strong=strong_of(data) if views > 1 else None,
        mixing=data.mix,
        views=data.views,
        draws=None if data.views is None else VIEWS,
        workers=recipe.engine.workers,
        device=device,
    )


def strong_of(data: Data) -> tuple[Transform, ...]:
    """What makes the second view; where nothing is said, as in Jin et al., 2023."""
    return data.strong or (*data.transforms, RandAugment(ops=2, uniform=True), Cutout(0.5))


def data_is_finite(data: Data) -> bool:
    """Whether a first view comes back, so that what a teacher said about it can be kept."""
    return data.mix is None and (bool(data.views) or not is_random(data.transforms))


def make_filling_loader(
    data: Data, sources: Sources, device: torch.device, workers: int = 0
) -> Loader:
    """The training images in their own order, all of them on each rank, for a store."""
    return Loader(
        sources.train,
        BatchSampler(len(sources.train), max(data.batch, 64)),
        sources.mean,
        sources.std,
        transforms=data.transforms,
        views=data.views,
        draws=VIEWS,
        workers=workers,
        device=device,
    )

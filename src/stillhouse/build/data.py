"""Builds sources and loaders from the data section of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from stillhouse.build.unlabelled import open_unlabelled
from stillhouse.data.catalogue import IMAGENET, entry, open_source
from stillhouse.data.images import limit_pixels
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.positions import SEARCHED, has_positions
from stillhouse.data.problems import MissingSplit
from stillhouse.data.sampler import aspect_groups
from stillhouse.data.source import Source, hold_out, notes_of, targets_of
from stillhouse.data.transforms import Cutout, RandAugment, Transform, is_random
from stillhouse.data.unlabelled import add_unlabelled, without_labels
from stillhouse.distributed import rank, world_size
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data, Recipe
from stillhouse.recipes.splits import SplitSpec, UnlabelledSpec
from stillhouse.tasks.base import Facts, Task

UNLABELLED = UnlabelledSpec(name="given")  # what sources that are given have in a recipe
VIEW_SEED = 0  # the seed of numbered views, the same for all runs and seeds


@dataclass(frozen=True)
class Sources:
    """The three splits of a data set, and the properties of its images.

    `train` has no labels where no training image has any.
    """

    train: Source
    val: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]  # height, width, after the transforms of evaluation
    channels: int
    unlabelled: Source | None = None  # training images beside those of `train`
    alone: bool = False  # whether no training image has labels

    @cached_property
    def training(self) -> Source:
        """The images that are trained on: those of `train`, then those without labels."""
        more = self.unlabelled
        return self.train if more is None else add_unlabelled(self.train, more)

    @property
    def parts(self) -> Mapping[str, Source]:
        """The splits, and the images without labels if there are any, by name."""
        splits: dict[str, Source] = {"train": self.train, "val": self.val, "test": self.test}
        return splits if self.unlabelled is None else {**splits, "unlabelled": self.unlabelled}

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their indices."""
        return tuple(self.train.classes)

    @property
    def notes(self) -> tuple[str, ...]:
        """How many images have no labels, and notes on samples that were left out."""
        found = [note for source in self.parts.values() for note in notes_of(source)]
        if self.alone:
            found.insert(0, f"all {len(self.train):,} training images are without labels")
        elif self.unlabelled is not None:
            found.insert(
                0,
                f"training uses {len(self.train):,} images with labels and "
                f"{len(self.unlabelled):,} without",
            )
        return tuple(dict.fromkeys(found))


SplitSources = Mapping[str, Source]


def open_sources(data: Data, given: SplitSources | None = None) -> Sources:
    """The splits of the recipe, or those given; val may be held out of train.

    Without a test split, val is used in its place. Raises UserError for splits that do not fit.
    """
    limit_pixels(data.max_pixels)
    if given is None:
        known = entry(data.name)
        mean, std = data.mean or known.mean, data.std or known.std
        return describe_splits(data, open_splits(data), mean, std)
    if not {"train", "unlabelled"} & set(given) or not (data.holdout or "val" in given):
        raise UserError("splits must contain train and val; leave out val only with data.holdout")
    splits = dict(given)
    if data.holdout:
        splits["train"], splits["val"] = hold_out(given["train"], data.holdout)
    return describe_splits(data, splits, data.mean or IMAGENET[0], data.std or IMAGENET[1])


def open_splits(data: Data) -> SplitSources:
    """The splits of the recipe by name, `test` and `unlabelled` where there are any.

    Without labelled training images there is no `train`.
    """
    spec, splits = data.unlabelled, {}
    if spec is not None and spec.alone and not data.holdout:
        splits["val"] = open_split(data, "val")
    else:
        splits["train"], splits["val"] = open_training(data)
    if (test := open_test(data)) is not None:
        splits["test"] = test
    splits = {name: take_subset(data, name, source) for name, source in splits.items()}
    if spec is not None:
        splits["unlabelled"] = open_unlabelled(data, spec)
        if spec.alone:
            splits.pop("train", None)
    return splits


def describe_splits(
    data: Data, splits: SplitSources, mean: tuple[float, ...], std: tuple[float, ...]
) -> Sources:
    """The splits with the size and channels of their first image; val in the place of no test."""
    val, test = splits["val"], splits.get("test", splits["val"])
    more, alone = splits.get("unlabelled"), "train" not in splits
    if more is not None:
        more = without_labels(more, tuple(val.classes), bool(has_positions(val, SEARCHED)))
    train = splits.get("train", more)
    assert train is not None
    for name, source in (("val", val), ("test", test)):
        if tuple(source.classes) != tuple(train.classes):
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
    shape = (size[0], size[1])
    return Sources(train, val, test, mean, std, shape, channels, None if alone else more, alone)


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


def open_training(data: Data) -> tuple[Source, Source]:
    """Train and val; with data.holdout, val is held out of train."""
    train = open_split(data, "train")
    if not data.holdout:
        return train, open_split(data, "val")
    return hold_out(train, data.holdout)


def take_subset(data: Data, split: str, source: Source) -> Source:
    """The samples of a split, or the stratified number or share of them that `subset` names."""
    spec: SplitSpec = getattr(data, split)
    if spec.subset is None or spec.subset in (1.0, len(source)):
        return source
    try:
        return hold_out(source, spec.subset)[1]
    except UserError as error:
        raise UserError(
            f"data.{split}.subset={spec.subset} cannot be taken of {len(source)} samples; set a "
            "count below that, or a share that leaves some"
        ) from error


def open_test(data: Data) -> Source | None:
    """The test split; None if its files are optional and missing."""
    below = entry(data.name).test
    if below and data.path and not (data.path.expanduser() / below).exists():
        return None
    try:
        return open_split(data, "test")
    except MissingSplit:
        return None


def open_split(data: Data, name: str) -> Source:
    """The split `train`, `val` or `test`, with the options of the data section and its own."""
    spec: SplitSpec = getattr(data, name)
    options = {**data.options, **spec.options}
    options |= {k: v for k in ("count", "seed") if (v := getattr(spec, k)) is not None}
    if data.broken is not None and entry(data.name).files:
        options = {"broken": data.broken, **options}
    return open_source(data.name, data.path, name, **options)


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

"""From what a recipe says of data to sources and loaders."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stillhouse.data.catalogue import entry, open_source
from stillhouse.data.loader import Loader, Plan
from stillhouse.data.source import Source, split
from stillhouse.distributed import rank, world_size
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data, Recipe, Split


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


def open_sources(data: Data) -> Sources:
    """The splits that the recipe names; val is held out of train where the recipe says so."""
    train, val = open_training(data)
    test = open_test(data) or val
    for name, source in (("val", val), ("test", test)):
        if tuple(source.classes) != tuple(train.classes):
            raise UserError(
                f"{data.name}: train has {len(train.classes)} classes and {name} "
                f"{len(source.classes)}, and they differ; give all splits the same classes"
            )
    known = entry(data.name)
    mean, std = data.mean or known.mean, data.std or known.std
    plan = Plan(len(val), 1)
    image = next(Loader(val, plan, mean, std, transforms=data.evaluation).epoch(0)).image
    size = (image.shape[2], image.shape[3])
    return Sources(train, val, test, mean, std, size, image.shape[1])


def open_training(data: Data) -> tuple[Source, Source]:
    """Train and val, the second out of the first where samples are held out."""
    train = open_split(data, "train")
    if not data.holdout:
        return train, open_split(data, "val")
    return split(train, data.holdout)


def open_test(data: Data) -> Source | None:
    """The test split; None where a folder of files has none."""
    below = data.path / "test" if data.path else None
    if data.name in ("folder", "shards") and below is not None and not below.exists():
        return None
    return open_split(data, "test")


def open_split(data: Data, name: str) -> Source:
    """One split by name."""
    wanted: Split = getattr(data, name)
    options = dict(wanted.options)
    options |= {k: v for k in ("count", "seed") if (v := getattr(wanted, k)) is not None}
    return open_source(data.name, data.path, name, **options)


def make_loader(source: Source, recipe: Recipe, sources: Sources, device: torch.device) -> Loader:
    """Batches of a split in its own order, each sample once over all ranks."""
    batch = max(recipe.data.batch, 64)  # small batches are for learning, not for measuring
    plan = Plan(len(source), batch, rank=rank(), world=world_size())
    return Loader(
        source,
        plan,
        sources.mean,
        sources.std,
        transforms=recipe.data.evaluation,
        workers=recipe.engine.workers,
        device=device,
    )


def make_training_loader(recipe: Recipe, sources: Sources, device: torch.device) -> Loader:
    """Shuffled batches of train, as many on each rank."""
    data = recipe.data
    plan = Plan(len(sources.train), data.batch, True, recipe.seed, rank(), world_size())
    return Loader(
        sources.train,
        plan,
        sources.mean,
        sources.std,
        transforms=data.transforms,
        views=data.views,
        workers=recipe.engine.workers,
        device=device,
    )

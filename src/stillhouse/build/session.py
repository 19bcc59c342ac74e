"""What all trainings of a recipe share: data, task and hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from stillhouse.batches import Batch
from stillhouse.build.data import Sources, make_facts, make_loader, open_sources
from stillhouse.build.splits import SplitSources
from stillhouse.data.loader import Loader
from stillhouse.data.record import ScoreSplit, describe_sources
from stillhouse.data.source import Source
from stillhouse.engine.devices import Hardware
from stillhouse.errors import UserError
from stillhouse.models.taps import Tapped
from stillhouse.recipes.schema import Data, Recipe
from stillhouse.tasks.base import Task


@dataclass(frozen=True)
class Session:
    """Data, task and hardware, which all trainings of a recipe share."""

    data: Data
    sources: Sources
    task: Task[Any]
    hardware: Hardware
    workers: int = 0  # processes that load images
    quiet: bool = False  # no progress display

    @staticmethod
    def open(
        recipe: Recipe,
        *,
        quiet: bool = False,
        splits: SplitSources | None = None,
        task: Task[Any] | None = None,
    ) -> Session:
        """Open the data and the device of a recipe; `splits` and `task` replace the recipe's."""
        engine = recipe.engine
        if engine.threads:
            torch.set_num_threads(engine.threads)
        hardware = Hardware(engine.device, engine.precision)
        sources = open_sources(recipe.data, splits)
        task = task or recipe.task.build(make_facts(recipe.data, sources))
        return Session(recipe.data, sources, task, hardware, engine.workers, quiet)

    def split(self, name: str) -> Loader:
        """The evaluation loader of `train`, `val` or `test`, each sample once over all ranks."""
        splits = self.sources.by_name
        if name not in splits:
            raise UserError(
                f"{self.data.name} has no {name} split here; choose from {', '.join(splits)}"
            )
        return self.loader(splits[name])

    def loader(self, source: Source) -> Loader:
        """The evaluation loader of a source, each sample once over all ranks."""
        return make_loader(source, self.data, self.sources, self.hardware.device, self.workers)

    def describe_data(self) -> dict[str, Any]:
        """The classes, and the fingerprint and number of samples of each part of the data."""
        return describe_sources(self.sources.parts)

    def labelled(self) -> Session:
        """The session without the images without labels, for trainings on labels alone."""
        return replace(
            self,
            data=replace(self.data, unlabelled=None),
            sources=replace(self.sources, unlabelled=None),
        )

    def val(self) -> Iterator[Batch[Any]]:
        """Batches of the validation split."""
        return self.split("val").epoch(0)

    @property
    def score_split(self) -> ScoreSplit:
        """The split that scores are measured on: validation where there is no test split."""
        return self.sources.score_split

    def measured(self) -> Iterator[Batch[Any]]:
        """Batches of the split that scores are measured on."""
        return self.loader(self.sources.measured).epoch(0)

    def traced(self, network: nn.Module) -> Tapped:
        """A network in eval mode that returns a Trace."""
        return Tapped(network.eval())

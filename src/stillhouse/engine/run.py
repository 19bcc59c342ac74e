"""All that one training owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import nn

from stillhouse.batches import Batch
from stillhouse.engine.average import WeightEMA
from stillhouse.engine.devices import Hardware
from stillhouse.engine.progress import NoProgress, Progress
from stillhouse.engine.pupil import Pupil, unwrap_pupil
from stillhouse.engine.records import Records
from stillhouse.engine.schedules import Schedule
from stillhouse.tasks.base import Task
from stillhouse.teachers.base import Teacher, observe
from stillhouse.types import Trace


class Batches(Protocol):
    """A loader: epochs that can be entered in the middle."""

    def __len__(self) -> int: ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Any]:
        """Batches `start` and on of one epoch."""
        ...


@dataclass
class Group:
    """An optimiser, the rates it began with, and how they change."""

    optimiser: torch.optim.Optimizer
    schedule: Schedule
    rates: list[float]


@dataclass
class Run:
    """One training: its parts, its length, and where it writes."""

    pupil: nn.Module
    teacher: Teacher[Any]
    task: Task[Any]
    loader: Batches
    groups: Mapping[str, Group]
    hardware: Hardware
    steps: int
    folder: Path | None = None
    recipe_hash: str = ""
    accumulate: int = 1
    clip: float = 0.0
    average: WeightEMA | None = None
    records: Records | None = None
    progress: Progress = field(default_factory=NoProgress)
    validation: Callable[[], Iterable[Any]] | None = None
    moved: nn.Module | None = None  # the network of a teacher that learns, to be measured with it
    log_every: int = 50
    evaluate_every: int = 0
    save_every: int = 0
    start: int = 0
    pause: int | None = None  # the step to stop after, before the end
    course: int | None = None  # steps that schedules are drawn for; None: as many as there are
    teacher_hash: str = ""  # the teacher's hash
    spent: float = 0.0  # seconds of earlier legs
    began: float = field(default_factory=perf_counter)
    history: list[dict[str, float]] = field(default_factory=list)  # evaluations, in order

    @property
    def seconds(self) -> float:
        """How long the training has taken, over all its legs."""
        return self.spent + perf_counter() - self.began

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        return max(1, len(self.loader) // self.accumulate)

    @property
    def inside(self) -> Pupil[Any]:
        """The pupil without wrappers."""
        return unwrap_pupil(self.pupil)

    def observe(self, batch: Batch[Any]) -> dict[str, Trace]:
        """The teacher's Trace of each view that the method needs."""
        return observe(self.teacher, batch, self.inside.method.views)

    @property
    def student(self) -> nn.Module:
        """The bare student network."""
        return self.inside.student.model

    def batches(self) -> Iterator[Any]:
        """Micro-batches from where the run stands, for ever; leftovers of an epoch are dropped."""
        used = self.steps_per_epoch * self.accumulate
        epoch, step = divmod(self.start, self.steps_per_epoch)
        first = step * self.accumulate
        while True:
            stream = self.loader.epoch(epoch, first)
            for _, batch in zip(range(first, used), stream, strict=False):
                yield batch
            epoch, first = epoch + 1, 0

"""The objects and settings of one training."""

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
    """A loader whose epochs can be started at any batch."""

    def __len__(self) -> int: ...

    def epoch(self, index: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from the batch `start` on."""
        ...


@dataclass
class Group:
    """An optimiser with its learning rate schedule."""

    optimiser: torch.optim.Optimizer
    schedule: Schedule
    rates: list[float]  # base learning rates, one per parameter group


@dataclass
class Run:
    """One training: its objects, its length, and the folder it writes to."""

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
    trained_teacher: nn.Module | None = None  # the network of a trained teacher, for validation
    log_every: int = 50
    evaluate_every: int = 0
    save_every: int = 0
    start: int = 0  # the next step
    pause: int | None = None  # stop before this step; None: at the end
    schedule_steps: int | None = None  # length of learning rate schedules; None: `steps`
    data: Mapping[str, Any] = field(default_factory=dict)  # see `data.record`
    teacher_hash: str = ""  # of the teacher's weights before training
    earlier_seconds: float = 0.0  # of training before the last resume
    started_at: float = field(default_factory=perf_counter)
    history: list[dict[str, float]] = field(default_factory=list)  # validation scores, in order

    @property
    def seconds(self) -> float:
        """The duration of the training so far, including that before a resume."""
        return self.earlier_seconds + perf_counter() - self.started_at

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return max(1, len(self.loader) // self.accumulate)

    @property
    def bare_pupil(self) -> Pupil[Any]:
        """The pupil without the wrappers of DDP and compile."""
        return unwrap_pupil(self.pupil)

    def observe(self, batch: Batch[Any]) -> dict[str, Trace]:
        """The teacher's Trace of each view that the method needs."""
        return observe(self.teacher, batch, self.bare_pupil.method.views)

    @property
    def student(self) -> nn.Module:
        """The student network without taps and wrappers."""
        return self.bare_pupil.student.model

    def batches(self) -> Iterator[Any]:
        """An endless stream of micro-batches from step `start` on.

        The batches at the end of an epoch that do not fill a step are dropped.
        """
        used = self.steps_per_epoch * self.accumulate
        epoch, step = divmod(self.start, self.steps_per_epoch)
        first = step * self.accumulate
        while True:
            stream = self.loader.epoch(epoch, first)
            for _, batch in zip(range(first, used), stream, strict=False):
                yield batch
            epoch, first = epoch + 1, 0

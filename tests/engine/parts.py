"""A run small enough for every test of the loop, made without a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse.batches import Batch
from stillhouse.engine.devices import Hardware
from stillhouse.engine.optimisers import SGD
from stillhouse.engine.pupil import Pupil
from stillhouse.engine.records import Records
from stillhouse.engine.run import Group, Run
from stillhouse.engine.schedules import ConstantSchedule, learning_rates
from stillhouse.methods.logit import Logits
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.frozen import Frozen
from tiny import Net

CLASSES = 5


class Fixed:
    """Batches that depend on the epoch and the step alone."""

    def __init__(
        self, steps: int = 5, batch: int = 6, poison: tuple[int, int] | None = None
    ) -> None:
        self.steps, self.batch, self.poison = steps, batch, poison

    def __len__(self) -> int:
        return self.steps

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, self.steps):
            made = torch.Generator().manual_seed(1000 * index + step)
            images = torch.randn(self.batch, 3, 8, 8, generator=made)
            if (index, step) == self.poison:
                images[0] = float("nan")
            labels = torch.randint(CLASSES, (self.batch,), generator=made)
            keys = torch.arange(self.batch)
            yield Batch(images, labels, keys, torch.full_like(keys, index))


class Noisy(Net):
    """A student whose forward draws random numbers, so that resuming must restore them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(x), 0.2, self.training)


def make_run(folder: Path | None = None, loader: Any = None, **options: Any) -> Run:
    torch.manual_seed(3)
    task = Classification(CLASSES)
    method = Logits(presets.kd(temperature=2.0))
    pupil: Pupil[Any] = Pupil(Tapped(Noisy(4, CLASSES)), method, task)
    teacher: Frozen[Any] = Frozen(Net(8, CLASSES), task.inputs)
    hardware = Hardware("cpu")
    groups = {}
    for name, parameters in pupil.groups().items():
        optimiser = SGD(0.05).build(parameters)
        groups[name] = Group(optimiser, ConstantSchedule(), learning_rates(optimiser))
    records = Records(folder) if folder else None
    torch.manual_seed(4)
    defaults: dict[str, Any] = {"steps": 12, "log_every": 4, "evaluate_every": 5}
    loader = loader or Fixed()
    return Run(
        pupil=hardware.prepare(pupil),
        teacher=teacher,
        task=task,
        loader=loader,
        groups=groups,
        hardware=hardware,
        folder=folder,
        records=records,
        recipe_hash="r",
        validation=lambda: Fixed(2).epoch(99),
        **(defaults | options),
    )

"""The same thing for people with a loop of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Labelled, as_labelled
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.base import Method
from stillhouse.methods.setting import Setting, unknown
from stillhouse.models.taps import Tapped
from stillhouse.objectives.presets import Preset
from stillhouse.objectives.published import Published
from stillhouse.recipes.methods import make_method, storable
from stillhouse.recipes.networks import reshaped
from stillhouse.tasks.base import Task
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.views import BothViews
from stillhouse.types import Clock


class Distiller(nn.Module):
    """Student, method and task behind one forward, the teacher beside them.

    `loss, terms = distiller(batch)` in any loop: the loss is ready for backward, and exact over
    the ranks of DDP. Its parameters are the student's and the method's own; the teacher is not a
    submodule, stays in eval mode, and is in no state dict. A batch is `(images, labels)`, a mapping
    with `image` or `pixel_values` and `label` or `labels`, or a `Labelled`. `method` is a preset, a
    list of them, or a Method of your own; feature methods need an `example` batch of images, and
    those that remember every sample the `labels` of all: (samples,).
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        method: Method | Published | Sequence[Published],
        task: Task[Labelled] | str = "classification",
        *,
        steps: int = 0,
        steps_per_epoch: int = 1,
        example: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        looks = () if example is None else (example,)
        if not isinstance(method, Method):
            student, method = made(method, student, teacher, example, labels)
        if method.moves_teacher:
            raise UserError(
                "acclimation moves the teacher by an optimiser of its own, which a loop of yours "
                "does not give it; use it in a recipe, or write the step with teachers.learner"
            )
        task = as_task(task)
        tapped = Tapped(student, method.student_taps, looks)
        self.pupil = Pupil(tapped, method, task)
        frozen = Frozen(teacher, task.inputs, method.teacher_taps, looks)
        # In a tuple, so that nn.Module does not take the teacher for a part of what learns.
        self._teacher = (frozen, BothViews(frozen, task.second) if method.views > 1 else frozen)
        self.steps, self.steps_per_epoch, self.step = steps, steps_per_epoch, 0

    @property
    def student(self) -> nn.Module:
        """The bare student network."""
        return self.pupil.student.model

    @property
    def teacher(self) -> Frozen[Labelled]:
        """What answers each batch."""
        return self._teacher[0]

    def forward(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one batch, and each term's weighted mean, for the record."""
        labelled = as_labelled(batch)
        self.teacher.network.to(labelled.image.device)
        clock = Clock(self.step, max(self.steps, self.step + 1), self.steps_per_epoch)
        terms = self.pupil(labelled, self._teacher[1](labelled), clock)
        if self.training:
            self.step += 1
        said = {name: term.weight * term.mean().detach() for name, term in terms.items()}
        return combine(terms), said


def made(
    method: Published | Sequence[Published],
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor | None,
    labels: Tensor | None,
) -> tuple[nn.Module, Method]:
    """The student in the shape that a method wants, and the method that was meant."""
    specs = [method] if isinstance(method, Published) else list(method)
    if example is None and not all(isinstance(spec, Preset) and storable(spec) for spec in specs):
        raise UserError("this method needs to see shapes: give Distiller(..., example=images)")
    blank = torch.zeros(0) if example is None else example
    known = unknown if labels is None else lambda: labels
    setting = Setting(student, teacher, blank, known)
    shaped = reshaped(specs, setting)
    return shaped, make_method(specs, replace(setting, student=shaped))


def as_task(task: Task[Labelled] | str) -> Task[Labelled]:
    """What was given as a task."""
    if not isinstance(task, str):
        return task
    if task != "classification":
        raise UserError(f"there is no task {task!r}" + did_you_mean(task, ["classification"]))
    return Classification()

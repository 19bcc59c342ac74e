"""The same thing for people with a loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Labelled, as_labelled
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.acclimation import Acclimation
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method, reshaped
from stillhouse.methods.setting import Setting, no_labels
from stillhouse.models.last_layers import last_layers
from stillhouse.models.taps import Tapped
from stillhouse.objectives.presets import Preset
from stillhouse.objectives.published import Published
from stillhouse.tasks.base import Task
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.learner import Learner
from stillhouse.teachers.views import BothViews
from stillhouse.types import Clock

TASKS: Mapping[str, Callable[[], Task[Labelled]]] = {
    "classification": Classification,
    "multilabel": Multilabel,
}


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
        specs: Sequence[Published] = ()
        if not isinstance(method, Method):
            specs = [method] if isinstance(method, Published) else list(method)
            student, method = made(specs, student, teacher, example, labels)
        self.keyed = any("keys" in spec.card.needs for spec in specs)
        task = as_task(task)
        tapped = Tapped(student, method.student_taps, looks)
        self.pupil = Pupil(tapped, method, task)
        inside: Frozen[Labelled] | Learner[Labelled]
        if method.moves_teacher:
            layers = moving(specs, teacher, example)
            inside = Learner(teacher, task.inputs, layers, method.teacher_taps, looks)
        else:
            inside = Frozen(teacher, task.inputs, method.teacher_taps, looks)
        # In a tuple, so that nn.Module does not take the teacher for a part of what learns.
        self._teacher = (inside, BothViews(inside, task.second) if method.views > 1 else inside)
        self.steps, self.steps_per_epoch, self.step = steps, steps_per_epoch, 0

    @property
    def student(self) -> nn.Module:
        """The bare student network."""
        return self.pupil.student.model

    @property
    def teacher(self) -> Frozen[Labelled] | Learner[Labelled]:
        """What answers each batch."""
        return self._teacher[0]

    def teacher_parameters(self) -> list[nn.Parameter]:
        """What acclimation trains of the teacher, for an optimiser of its own.

        They are outside of this module: under DDP, `distributed.average_gradients` does for them
        what DDP does for the rest.
        """
        return [p for group in self.teacher.groups().values() for p in group]

    def forward(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one batch, and each term's weighted mean, for the record."""
        if self.keyed and not isinstance(batch, Labelled):
            raise UserError(
                "this method remembers every sample by its key: give batches as "
                "stillhouse.Labelled(image, label, key, view)"
            )
        labelled = as_labelled(batch)
        self.teacher.network.to(labelled.image.device)
        clock = Clock(self.step, max(self.steps, self.step + 1), self.steps_per_epoch)
        terms = self.pupil(labelled, self._teacher[1](labelled), clock)
        if self.training:
            self.step += 1
        said = {name: term.weight * term.mean().detach() for name, term in terms.items()}
        return combine(terms), said


def made(
    specs: Sequence[Published],
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor | None,
    labels: Tensor | None,
) -> tuple[nn.Module, Method]:
    """The student in the shape that methods want, and the method that was meant."""
    if example is None and not all(isinstance(spec, Preset) and spec.storable for spec in specs):
        raise UserError("this method needs to see shapes: give Distiller(..., example=images)")
    blank = torch.zeros(0) if example is None else example
    known = no_labels if labels is None else lambda: labels
    setting = Setting(student, teacher, blank, known)
    shaped = reshaped(specs, setting)
    return shaped, make_method(specs, replace(setting, student=shaped))


def moving(specs: Sequence[Published], teacher: nn.Module, example: Tensor | None) -> list[str]:
    """The layers of the teacher that acclimation moves."""
    named = [layer for s in specs if isinstance(s, Acclimation) for layer in s.layers]
    if named or example is None:
        return named
    return last_layers(teacher, example)


def as_task(task: Task[Labelled] | str) -> Task[Labelled]:
    """What was given as a task."""
    if not isinstance(task, str):
        return task
    if task not in TASKS:
        raise UserError(f"there is no task {task!r}" + did_you_mean(task, TASKS))
    return TASKS[task]()

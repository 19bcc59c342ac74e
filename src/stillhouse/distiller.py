"""Distillation in a training loop of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method, reshape_student
from stillhouse.methods.catalogue import published
from stillhouse.methods.setting import Setting, no_labels
from stillhouse.methods.unlabelled import check_labelled
from stillhouse.models.last_layers import last_layers
from stillhouse.models.taps import Tapped
from stillhouse.objectives.presets import Preset
from stillhouse.objectives.published import Published
from stillhouse.tasks.base import Task
from stillhouse.tasks.catalogue import TASKS
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.learner import Learner
from stillhouse.types import Clock


class Distiller(nn.Module):
    """Student, method and task behind one forward, the teacher beside them.

    `loss, terms = distiller(batch)` in any loop: the loss is ready for backward, and exact over
    the ranks of DDP. Its parameters are those of the student and of the method; the teacher is not
    a submodule, stays in eval mode, and is in no state dict. A batch is `(images, labels)`, a
    mapping with `image` or `pixel_values` and `label` or `labels`, or a `Batch`. `method` is a
    preset or its name, a list of them, or a Method of your own; feature methods need an `example`
    batch of images, those with a memory of every sample the `labels` of all: (samples,), and those
    with a schedule in epochs `steps_per_epoch`.

    With `task="detection"` the networks are detectors, which may be a RetinaNet or FCOS of
    torchvision; labels are then `Objects`, or a list of {"boxes", "labels"} with one item per
    image.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        method: Method | Published | str | Sequence[Published | str],
        task: Task[Any] | str = "classification",
        *,
        steps: int = 0,
        steps_per_epoch: int | None = None,
        example: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.task = as_task(task)
        student, teacher = self.task.adapt(student), self.task.adapt(teacher)
        examples = () if example is None else (example,)
        specs: Sequence[Published] = ()
        if not isinstance(method, Method):
            several = [method] if isinstance(method, Published | str) else method
            specs = [as_spec(one) for one in several]
            check_schedules(specs, steps_per_epoch)
            student, method = build_method(specs, student, teacher, example, labels)
        self.specs = tuple(specs)
        self.keyed = any("keys" in spec.needs for spec in specs)
        self.pupil = Pupil(Tapped(student, method.student_taps, examples), method, self.task)
        inputs = self.task.inputs
        made: Frozen[Any] | Learner[Any] = Frozen(teacher, inputs, method.teacher_taps, examples)
        if method.moves_teacher:
            layers = trained_layers(method, teacher, example)
            made = Learner(teacher, inputs, layers, method.teacher_taps, examples)
        # In a tuple, so that nn.Module does not register the teacher as a submodule.
        self._teacher = (made,)
        self.steps, self.steps_per_epoch, self.step = steps, steps_per_epoch or 1, 0

    @property
    def student(self) -> nn.Module:
        """The student network, without taps."""
        return self.pupil.student.model

    @property
    def teacher(self) -> Frozen[Any] | Learner[Any]:
        """The teacher: batch -> Trace."""
        return self._teacher[0]

    def teacher_parameters(self) -> list[nn.Parameter]:
        """The layers of the teacher that acclimation trains, for an optimiser of their own.

        They are outside of this module: under DDP, `distributed.average_gradients` does for them
        what DDP does for the rest.
        """
        return [p for group in self.teacher.groups().values() for p in group]

    def forward(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss of one batch, and the weighted mean of each term, for logging."""
        if self.keyed and not isinstance(batch, Batch):
            raise UserError(
                "this method keeps a memory of every sample by its key: pass batches as "
                "stillhouse.Batch(images, target, keys, views)"
            )
        read = self.task.read(batch)
        check_labelled(self.specs, read.target)
        self.teacher.network.to(read.images.device)
        clock = Clock(self.step, max(self.steps, self.step + 1), self.steps_per_epoch)
        traces = observe(self.teacher, read, self.pupil.method.views)
        terms = self.pupil(read, traces, clock)
        if self.training:
            self.step += 1
        means = {name: term.weight * term.mean().detach() for name, term in terms.items()}
        return combine(terms), means


def as_spec(method: Published | str) -> Published:
    """A method, or the one of that name with its default options."""
    if isinstance(method, Published):
        return method
    known = published()
    if method not in known:
        raise UserError(f"unknown method {quote(method)}" + did_you_mean(str(method), known))
    return known[method]()


def check_schedules(specs: Sequence[Published], steps_per_epoch: int | None) -> None:
    """Raise UserError for a schedule in epochs where their length is unknown."""
    for spec in specs:
        parts = (spec, getattr(spec, "base", None))
        names = [name for name in ("warmup", "ramp") if any(getattr(p, name, 0) for p in parts)]
        if names and steps_per_epoch is None:
            raise UserError(
                f"the {names[0]} of {spec.name} is in epochs: pass "  # type: ignore[attr-defined]
                "Distiller(..., steps_per_epoch=len(loader))"
            )


def build_method(
    specs: Sequence[Published],
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor | None,
    labels: Tensor | None,
) -> tuple[nn.Module, Method]:
    """The student in the shape that the methods give it, and the method."""
    if example is None and not all(isinstance(spec, Preset) and spec.storable for spec in specs):
        raise UserError(
            "this method needs the shapes of features: pass Distiller(..., example=images)"
        )
    blank = torch.zeros(0) if example is None else example
    known = no_labels if labels is None else lambda: labels
    setting = Setting(student, teacher, blank, known)
    shaped = reshape_student(specs, setting)
    return shaped, make_method(specs, replace(setting, student=shaped))


def trained_layers(method: Method, teacher: nn.Module, example: Tensor | None) -> Sequence[str]:
    """The layers of the teacher that the method trains."""
    if method.teacher_layers or example is None:
        return method.teacher_layers
    return last_layers(teacher, example)


def as_task(task: Task[Any] | str) -> Task[Any]:
    """A task, or the one of that name with its default options."""
    if not isinstance(task, str):
        return task
    if task not in TASKS:
        raise UserError(f"unknown task {quote(task)}" + did_you_mean(task, TASKS))
    made: Task[Any] = TASKS[task]()
    return made

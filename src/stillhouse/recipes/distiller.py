"""The same thing for people with a loop of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from stillhouse.batches import Labelled, as_labelled
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.base import Method
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock


class Distiller(nn.Module):
    """Student, method and task behind one forward, the teacher beside them.

    `loss, terms = distiller(batch)` in any loop: the loss is ready for backward, and exact over
    the ranks of DDP. Its parameters are the student's and the method's own; the teacher is not a
    submodule, stays in eval mode, and is in no state dict. A batch is `(images, labels)`, a mapping
    with `image` or `pixel_values` and `label` or `labels`, or a `Labelled`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        method: Method,
        task: Task[Labelled],
        *,
        steps: int = 0,
        steps_per_epoch: int = 1,
        example: Tensor | None = None,
    ) -> None:
        super().__init__()
        looks = () if example is None else (example,)
        tapped = Tapped(student, method.student_taps, looks)
        self.pupil = Pupil(tapped, method, task)
        # In a tuple, so that nn.Module does not take the teacher for a part of what learns.
        self._teacher = (Frozen(teacher, task.inputs, method.teacher_taps, looks),)
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
        terms = self.pupil(labelled, self.teacher(labelled), clock)
        if self.training:
            self.step += 1
        said = {name: term.weight * term.mean().detach() for name, term in terms.items()}
        return combine(terms), said

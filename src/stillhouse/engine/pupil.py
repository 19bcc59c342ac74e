"""Everything that learns, behind one forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Generic, TypeVar

from torch import nn

from stillhouse.methods.base import Method
from stillhouse.models.taps import Tapped
from stillhouse.tasks.base import Task
from stillhouse.types import Clock, Terms, Trace

B = TypeVar("B")


class Pupil(nn.Module, Generic[B]):
    """Student and method as one module, so that DDP and compile see every trainable tensor."""

    def __init__(self, student: Tapped, method: Method, task: Task[B]) -> None:
        super().__init__()
        self.student, self.method, self.task = student, method, task

    def forward(self, batch: B, teacher: Trace, clock: Clock) -> Terms:
        """The terms of one batch: those of the labels, then those of the method."""
        student: Trace = self.student(*self.task.inputs(batch))
        if self.method.views > 1:
            second: Trace = self.student(*self.task.inputs(self.task.second(batch)))
            student = replace(student, strong=second)
        share = self.method.share(clock)
        labels = {
            name: term._replace(weight=share * term.weight)
            for name, term in self.task.supervise(student, batch).items()
        }
        taught: Terms = self.method(self.task.lesson(student, teacher, batch, clock))
        return labels | taught

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Trainable parameters by optimiser group: the student's, and those the method names."""
        named = {p: name for name, p in self.named_parameters()}
        student = [p for p in self.student.parameters() if p.requires_grad]
        found = {"student": student} | {k: list(v) for k, v in self.method.groups().items()}
        return {
            group: [(named[p], p) for p in parameters]
            for group, parameters in found.items()
            if parameters
        }


def bare(pupil: nn.Module) -> Pupil[object]:
    """The pupil inside whatever DDP and compile put around it."""
    for inside in unwrap(pupil):
        if isinstance(inside, Pupil):
            return inside
    raise TypeError(f"{type(pupil).__name__} holds no pupil")


def unwrap(module: nn.Module) -> Iterator[nn.Module]:
    """A module, and each module that it only wraps."""
    while True:
        yield module
        inside = getattr(module, "module", None) or getattr(module, "_orig_mod", None)
        if not isinstance(inside, nn.Module):
            return
        module = inside

"""The interface of a method: Lesson -> Terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from stillhouse.types import Clock, Lesson, Terms


class Method(nn.Module):
    """Computes loss terms from the outputs of a student and a teacher on one batch.

    A method calls no network, uses no optimiser, and does not depend on the task.
    """

    sites: tuple[str, ...] = ()  # where the networks are compared: class, class@strong, edge

    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    label_share: float = 1.0  # weight of the label terms
    needs_labels: bool = False
    views: int = 1  # of each image; the second is the strongly augmented one
    members: int = 0  # of an ensemble, where each teacher has terms of its own
    moves_teacher: bool = False  # whether one of its terms trains the teacher
    teacher_layers: tuple[str, ...] = ()  # that it trains; empty: the last block and the head
    teacher_rate: float = 1.0  # learning rate of these layers, relative to the student's
    unused_parameters: bool = False  # whether some of its parameters get no gradient in some steps

    def share(self, clock: Clock) -> float:
        """The weight of the label terms at this step; by default constant."""
        return self.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """The loss terms of one batch, by name; subclasses implement it."""
        raise NotImplementedError

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """Values to log beside the terms, such as the current temperature; by default none."""
        return {}

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Trainable parameters by optimiser group; by default all of them in `method`."""
        return {"method": self.parameters()}

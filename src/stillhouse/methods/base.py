"""What a method is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from stillhouse.types import Clock, Lesson, Terms


class Method(nn.Module):
    """From the outputs of a student and a teacher on one batch to loss terms.

    A method never calls a network, never sees an optimiser, and does not know the task.
    """

    sites: tuple[str, ...] = ()  # where the networks are compared: class, class@strong, edge

    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()
    label_share: float = 1.0  # what the label terms are multiplied by beside this method
    needs_labels: bool = False
    views: int = 1  # of each image; the second is the stronger one
    members: int = 0  # of an ensemble, where each teacher has terms of its own
    moves_teacher: bool = False  # whether one of its terms trains the teacher
    teacher_layers: tuple[str, ...] = ()  # that it trains; none named: the last block and the head
    teacher_rate: float = 1.0  # of the student's learning rate, for these layers
    idle: bool = False  # whether some of its parameters get no gradient in some steps

    def share(self, clock: Clock) -> float:
        """What the label terms are multiplied by at this time."""
        return self.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """The loss terms of one batch."""
        raise NotImplementedError

    def gauges(self, clock: Clock) -> Mapping[str, float]:
        """What the record should show of the method's own state at this time: a temperature."""
        return {}

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Trainable parameters, by the optimiser group that is to own them."""
        return {"method": self.parameters()}

"""What a task is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from stillhouse.types import Clock, Lesson, Terms, Trace

B = TypeVar("B")
Seen = TypeVar("Seen", contravariant=True)


class Meter(Protocol[Seen]):
    """Counts over an evaluation, on the device; its state is sums, which ranks add up."""

    def update(self, trace: Trace, batch: Seen) -> None:
        """Count one batch."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far, in double precision."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over sums, those of all ranks for instance."""
        ...

    def summary(self) -> Mapping[str, float]:
        """The numbers that people read."""
        ...


class Task(Protocol[B]):
    """What a batch means. A task knows labels and heads, and has never heard of a method."""

    @property
    def headline(self) -> str:
        """The number of `summary` that answers "how good"."""
        ...

    @property
    def chance(self) -> float:
        """What that number is for a network that knows nothing."""
        ...

    def inputs(self, batch: B) -> tuple[Tensor, ...]:
        """What the networks are called with."""
        ...

    def second(self, batch: B) -> B:
        """The batch in its second, stronger view."""
        ...

    def supervise(self, student: Trace, batch: B) -> Terms:
        """Loss terms that come from the labels."""
        ...

    def lesson(self, student: Trace, teacher: Trace, batch: B, clock: Clock) -> Lesson:
        """The batch with the names of the labels taken off: all that a method may know."""
        ...

    def meter(self) -> Meter[B]:
        """A fresh meter."""
        ...

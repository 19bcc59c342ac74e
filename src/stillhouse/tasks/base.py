"""What a task is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from stillhouse.types import Clock, Lesson, Terms, Trace

B = TypeVar("B")
Seen = TypeVar("Seen", contravariant=True)


class Meter(Protocol[Seen]):
    """Counts over an evaluation.

    Its state is sums, on the device, which ranks add up, and rows, which they put one after
    another where a sum cannot say it: a ranking needs every score.
    """

    @property
    def rows(self) -> frozenset[str]:
        """Which parts of the state are rows (N, ...); a rank that saw nothing has none of them."""
        ...

    def update(self, trace: Trace, batch: Seen) -> None:
        """Count one batch."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """The sums so far, in double precision, and the rows."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over sums and rows, those of all ranks for instance."""
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

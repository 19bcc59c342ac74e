"""What a task is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor

from stillhouse.batches import Batch, Target
from stillhouse.types import Clock, Lesson, Terms, Trace

T = TypeVar("T", bound=Target)
Seen = TypeVar("Seen", contravariant=True)


@dataclass(frozen=True)
class Facts:
    """What a task may know of the data when it is built."""

    data: str  # the name of the data set
    classes: tuple[str, ...]
    validation: Target  # targets of the validation split, or of its first samples


class Meter(Protocol[Seen]):
    """Counts over an evaluation.

    Its state is sums, on the device, which are added up over ranks, and rows, which are
    concatenated where a sum is not enough: a ranking needs every score.
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
        """Take over sums and rows, such as those of all ranks."""
        ...

    def summary(self) -> Mapping[str, float]:
        """The scores by name."""
        ...


class Task(Protocol[T]):
    """What a batch means: inputs, label terms, sites and scores. A task does not know methods."""

    @property
    def headline(self) -> str:
        """The score of `summary` that networks are compared by."""
        ...

    @property
    def chance(self) -> float:
        """That score of random predictions."""
        ...

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites that every lesson has."""
        ...

    def read(self, batch: Any) -> Batch[T]:
        """A batch of any loader as a `Batch`."""
        ...

    def inputs(self, batch: Batch[T], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network; a student's may depend on the teacher's Trace."""
        ...

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Refuse the output of a network on some images that does not fit the task."""
        ...

    def assign(self, student: Trace, batch: Batch[T]) -> Any:
        """What is assigned once per batch, for labels and methods; None for whole images."""
        ...

    def supervise(self, student: Trace, batch: Batch[T], assigned: Any = None) -> Terms:
        """Loss terms of the labels; an image without a label adds no mass."""
        ...

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[T],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The batch as methods see it, with every site of `sites`."""
        ...

    def select(self, output: Any, index: Tensor) -> Tensor:
        """The score of one class per image, for class activation maps: (N,) -> (N,)."""
        ...

    def storable(self, output: Any) -> Tensor:
        """The part of a teacher's output that is kept, one row per image: -> (N, C)."""
        ...

    def collect(self, trace: Trace) -> Tensor:
        """The scores that the diagnoses of `examine` read, one row per image: -> (N, C)."""
        ...

    def collect_target(self, batch: Batch[T]) -> Tensor:
        """The labels that they read, on the CPU: class indices -> (N,), or multi-hot -> (N, C)."""
        ...

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        """Whether a teacher with these scores on so many images is clearly above chance."""
        ...

    @property
    def examine(self) -> tuple[str, ...]:
        """The names of the diagnoses of `explain` that apply; none: no outputs are collected."""
        ...

    def meter(self) -> Meter[Batch[T]]:
        """A new meter."""
        ...

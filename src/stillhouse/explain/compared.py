"""What predictions of every kind have in common: networks with roles, and their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from torch import Tensor

from stillhouse.explain.roles import CONTROL, TEACHER

Layout = Literal["tsne", "pca"]


class NetworkOutputs(Protocol):
    """What one network gave for the images."""

    @property
    def name(self) -> str:
        """The role of the network, teacher, control or student, or the name of a method or run."""
        ...

    @property
    def finite(self) -> bool:
        """Whether all of its logits are finite."""
        ...

    @property
    def count(self) -> int:
        """The number of images."""
        ...


T = TypeVar("T", bound=NetworkOutputs)


@dataclass(frozen=True)
class Compared(Generic[T]):
    """The outputs of a teacher, a control and students for the same images, in this order."""

    outputs: tuple[T, ...]
    classes: tuple[str, ...]
    image: Callable[[int], Tensor]  # index or key of an image -> (C, H, W) uint8
    baseline: str = field(default=CONTROL, kw_only=True)  # what the student is compared with
    missing: Mapping[str, str] = field(default_factory=dict, kw_only=True)  # why there is none
    layout: Layout = field(default="tsne", kw_only=True)  # projection of features
    source: str = field(default="", kw_only=True)  # the name of the split

    @property
    def teacher(self) -> T | None:
        """The teacher, if there is one."""
        return next((one for one in self.outputs if one.name == TEACHER), None)

    @property
    def control(self) -> T | None:
        """The baseline of the student: the control, or another run; None if there is none."""
        return next((one for one in self.outputs if one.name == self.baseline), None)

    @property
    def students(self) -> tuple[T, ...]:
        """All networks except the teacher: the control first, if there is one."""
        return tuple(one for one in self.outputs if one.name != TEACHER)

    @property
    def student(self) -> T:
        """The last network, which the page is about."""
        return self.outputs[-1]

    @property
    def main(self) -> tuple[T, ...]:
        """Teacher, control and student, the networks of large charts."""
        names = (TEACHER, self.baseline, self.student.name)
        return tuple(one for one in self.outputs if one.name in names)

    @property
    def main_students(self) -> tuple[T, ...]:
        """Control and student."""
        return tuple(one for one in self.main if one.name != TEACHER)
